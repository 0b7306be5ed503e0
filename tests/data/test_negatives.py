from collections import Counter

import pytest

from dsd_jax.data.negatives import Negatives
from dsd_jax.errors import UserError


def anything(candidate):
    return True


def test_different_ones_that_follow_from_the_key():
    pool = list(range(40)) * 2  # some are there twice
    drawn = Negatives(9, 3).draw(7, pool, anything, "")
    assert len(set(drawn)) == 9 and set(drawn) < set(pool)
    assert Negatives(9, 3).draw(7, pool, anything, "") == drawn
    assert Negatives(9, 3).draw(8, pool, anything, "") != drawn
    assert Negatives(9, 4).draw(7, pool, anything, "") != drawn


def test_right_ones_are_never_drawn_and_the_last_wrong_one_is_found():
    pool = list(range(10_000))
    assert Negatives(1, 0).draw(0, pool, lambda x: x == 4321, "") == [4321]
    assert sorted(Negatives(3, 0).draw(0, pool, lambda x: x < 3, "")) == [0, 1, 2]


def test_every_candidate_is_as_likely_as_any_other():
    counts = Counter(
        x for i in range(2000) for x in Negatives(3, 0).draw(i, range(10), anything, "")
    )
    assert len(counts) == 10 and max(abs(n - 600) for n in counts.values()) < 5 * 20.5


@pytest.mark.parametrize("pool", [[], [1], [1, 2, 1, 2, 5]])
def test_too_few(pool):
    with pytest.raises(UserError, match=r"3 wrong candidates are needed, .* only \d cats; ask"):
        Negatives(3, 0).draw(0, pool, lambda x: x < 5, "cats")
