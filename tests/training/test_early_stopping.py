"""When training stops and whether its params are kept, from held-out losses alone."""

from types import SimpleNamespace

import numpy as np
import pytest

from dsd_jax.training import early_stopping

RECIPE = SimpleNamespace(steps=7, check_every=3, patience=2)
ZERO = np.arange(1.0, 7.0, dtype=np.float32)
APART = range(len(ZERO))  # every item of a cluster of its own


def state_after(*gains):
    """Return the state after checks with losses lower by `gains`, and each check's outcome."""
    state, outcomes = early_stopping.start(np.asarray(0), None, ZERO, RECIPE), []
    for step, gain in zip((3, 6, 7), gains, strict=False):
        state = state._replace(params=np.asarray(step))
        state, *outcome = early_stopping.update(state, step, ZERO - gain, RECIPE)
        outcomes.append(outcome)
    return state, outcomes


def test_checks_and_what_is_ahead():
    state, outcomes = state_after(0.5)
    assert state.held_out.shape == (4, 6) and np.isnan(state.held_out[2:]).all()
    checks, verdict = early_stopping.best_if_significant(state, RECIPE, APART)
    assert checks == {0: 3.5, 3: 3.0} and verdict.kept and verdict.step == 3
    assert verdict.gain == 0.5 and verdict.items == 6
    assert outcomes == [[False, 3.0]]


def test_the_last_check_is_at_the_last_step():
    state, _ = state_after(0.1, 0.2, 0.9)
    checks, verdict = early_stopping.best_if_significant(state, RECIPE, APART)
    assert list(checks) == [0, 3, 6, 7] and verdict.step == 7 and state.best == 7


def test_patience_counts_from_the_best_check():
    _, outcomes = state_after(0.5, 0.4, 0.3)
    assert [stop for stop, _ in outcomes] == [False, False, True]
    assert state_after(0.5, 0.4)[0].best == 3


@pytest.mark.parametrize("gain", [-0.5, 0.0, np.array([0.9, -0.4] + [0.0] * 4, np.float32)])
def test_nothing_is_kept_that_gains_no_more_than_its_error(gain):
    state, _ = state_after(gain)
    assert not early_stopping.best_if_significant(state, RECIPE, APART)[1].kept


@pytest.mark.parametrize(
    ("gains", "clusters", "kept"),
    [
        ([1.0, 1.1, 0.9, 1.0, 1.0], range(5), True),
        ([1.0, 1.1, 0.9], range(3), False),  # three items tell nothing
        ([1.0, 1.1, 0.9, 1.0], range(4), False),
        ([-1.0, -1.1] * 4, range(8), False),
        ([8.0, *[-1.0] * 7], range(8), False),
        ([0.0] * 6, range(6), False),
        ([1.0], [0], False),
        ([1.0, 1.1, 0.9, 1.0, 1.0] * 2, [0, 1, 2, 3] * 2 + [0, 1], False),
    ],
)
def test_a_gain_exceeds_its_standard_error(gains, clusters, kept):
    assert early_stopping.is_gain(np.array(gains), clusters) == kept


def test_items_of_a_cluster_gain_together():
    """The same gains over and over make no standard error smaller."""
    gains = np.random.default_rng(0).normal(-0.05, 1.0, 50)
    assert not early_stopping.is_gain(gains, range(50))
    repeated = np.repeat(gains, 10)
    assert early_stopping.is_gain(repeated, range(500))
    assert not early_stopping.is_gain(repeated, np.repeat(np.arange(50), 10))


def test_too_few_shots_are_told():
    with pytest.warns(UserWarning, match="^lora-4-0: 4 shots hold out fewer than 5 .* 10 or more"):
        early_stopping.warn_too_few("lora-4-0", 4)
