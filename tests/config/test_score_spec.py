"""What a config's methods ask for."""

import numpy as np
import pytest

from dsd_jax.config import score_spec
from dsd_jax.config.score_spec import parse, parse_all
from dsd_jax.errors import UserError


def test_forms():
    plain = parse("noise", 4)
    assert (plain.method, plain.stages, plain.compat, plain.is_plain) == (
        *("noise", ((None, 4),), False, True),
    )
    assert parse("noise-l1@30", 4).stages == ((None, 30),)
    pruned = parse("relative@10>5@50>2@200", 4)
    assert pruned.stages == ((None, 10), (5, 50), (2, 200)) and not pruned.is_plain
    compat = parse("dsd@40/compat", 4)
    assert compat.compat and compat.stages == ((None, 40),) and compat.label == "dsd@40/compat"


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("clip", "method 'clip' is unknown; expected one of attention, noise"),
        ("noise@", "method 'noise@' is not understood; expected NAME, NAME@TIMESTEPS or"),
        ("noise@10>5", "is not understood"),
        ("noise@0", "timesteps is 0; expected a number of timesteps from 1 to 1000"),
        ("noise@2000", "timesteps is 2000"),
        ("noise@10>5@10", "every round needs more timesteps than the one before"),
        ("noise@501>5@900", "needs more timesteps than .* and these have 980, 980"),
        ("noise@334>5@500", "these have 490, 490"),
        ("noise@10>5@20>5@30", "every round keeps fewer candidates"),
        ("noise@10>0@20", "and at least one"),
        ("noise/compat", "only methods with an attention score have /compat"),
    ],
)
def test_mistakes(label, message):
    with pytest.raises(UserError, match=message):
        parse(label, 4)


def test_asked_twice():
    with pytest.raises(UserError, match="'dsd' is there twice"):
        parse_all(["dsd", "noise", "dsd"], 4)


def test_rounds_compute_what_is_new_alone():
    reading = parse("noise@10>5@50", 4)
    assert set(reading.timesteps(0)) <= set(reading.timesteps(1))
    np.testing.assert_array_equal(
        reading.new_timesteps(1), np.setdiff1d(score_spec.timesteps(50), score_spec.timesteps(10))
    )


def test_passes():
    """1 image, 10 captions; 10 timesteps are 10, 50 are 49 by the authors' rule."""
    assert parse("noise@10", 4).passes(1, 10) == 10 * 10
    assert parse("itm@10", 4).passes(1, 10) == 10 * 11
    assert parse("itm@10", 4).passes(2, 1) == 10 * 4
    new = len(parse("noise@10>5@50", 4).new_timesteps(1))
    assert parse("noise@10>5@50", 4).passes(1, 10) == 10 * 10 + new * 5
    assert parse("noise@10>5@50", 4).passes(1, 3) == 10 * 3 + new * 3
