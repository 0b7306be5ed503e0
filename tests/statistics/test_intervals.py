"""Intervals where a standard error misleads."""

import numpy as np
import pytest

from dsd_jax.statistics.intervals import difference_interval, share_interval


@pytest.mark.parametrize(
    ("successes", "count", "low", "high"),
    # From R: prop.test(x, n, correct = FALSE)$conf.int.
    [(3, 3, 0.4385, 1.0), (0, 10, 0.0, 0.2775), (9, 10, 0.5958, 0.9821), (60, 60, 0.9398, 1.0)],
)
def test_wilsons_interval(successes, count, low, high):
    share = successes / count
    error = (share * (1 - share) / count) ** 0.5
    np.testing.assert_allclose(share_interval(share, error, count), (low, high), atol=1e-4)


@pytest.mark.parametrize(("share", "count"), [(0.5, 10), (0.9, 50), (0.1, 60)])
def test_with_five_successes_and_failures_the_standard_error_stays(share, count):
    assert share_interval(share, 0.05, count) is None


def test_draws_that_differ_widen_the_interval():
    narrow, wide = (share_interval(0.9, error, 12) for error in (0.087, 0.2))
    assert narrow and wide
    assert wide.low < narrow.low < 0.9 < narrow.high <= wide.high


def test_equal_rows_have_an_interval_around_nothing():
    low, high = difference_interval(np.zeros((1, 60)), 60) or (0, 0)
    np.testing.assert_allclose((low, high), (-1.96 / 62, 1.96 / 62), rtol=1e-6)


def test_differences_that_are_all_alike_are_not_certain():
    """All of ten items change from right to wrong: the standard error would be 0."""
    low, high = difference_interval(-np.ones((1, 10)), 10) or (0, 0)
    assert low == -1 < high < -0.5


def test_a_few_differences():
    """Agresti and Min: half an item is added to each of a pair's four outcomes."""
    differences = np.zeros((1, 40))
    differences[0, :3] = 1
    found = difference_interval(differences, 40)
    center, error = 3 / 42, np.sqrt(3 + 1 - 9 / 42) / 42
    np.testing.assert_allclose(found, (center - 1.96 * error, center + 1.96 * error))


def test_many_differences_have_a_standard_error():
    differences = np.array([[1, 1, 1, -1, -1, 0, 0, 0]])
    assert difference_interval(differences, 8) is None
    assert difference_interval(differences, 4) is not None  # of four clusters
