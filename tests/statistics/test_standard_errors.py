"""Standard errors by resampling items, clusters and seeds."""

import numpy as np
import pytest

from dsd_jax.statistics import standard_errors
from dsd_jax.statistics.standard_errors import standard_error


def test_independent_items():
    """The error of a zero-shot accuracy is that of a binomial proportion."""
    rng = np.random.default_rng(0)
    correct = (rng.random((1, 400)) < 0.8).astype(float)
    rate = correct.mean()
    found = standard_error(correct, range(400))
    np.testing.assert_allclose(found, np.sqrt(rate * (1 - rate) / 399), rtol=0.05)
    assert found == standard_error(correct, range(400))


def test_items_of_a_cluster_count_as_one():
    """Ten copies of a decision in one cluster count as one."""
    rng = np.random.default_rng(0)
    once = (rng.random((1, 50)) < 0.6).astype(float)
    repeated = np.repeat(once, 10, axis=1)
    clusters = np.repeat(np.arange(50), 10)
    alone = standard_error(once, range(50))
    np.testing.assert_allclose(standard_error(repeated, clusters), alone, rtol=1e-6)
    assert standard_error(repeated, range(500)) < 0.4 * alone


def test_clusters_of_different_sizes():
    """The means of many simulated experiments vary by one experiment's standard error."""
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), rng.integers(1, 8, 60))

    def experiment() -> np.ndarray:
        return rng.normal(size=60)[clusters] + rng.normal(size=len(clusters))

    many = np.stack([experiment() for _ in range(3000)])
    told = np.mean([standard_error(one[None], clusters) ** 2 for one in many[:200]])
    np.testing.assert_allclose(told, many.mean(axis=1).var(), rtol=0.15)


@pytest.mark.parametrize(("items", "seeds"), [(0.4, 0.0), (0.4, 0.1), (0.0, 0.1)])
def test_items_and_seeds(items, seeds):
    rng, shape = np.random.default_rng(0), (400, 3, 40)
    values = items * rng.normal(size=(shape[0], 1, shape[2]))
    values = values + seeds * rng.normal(size=(*shape[:2], 1))
    told = np.mean([standard_error(one, range(40)) ** 2 for one in values])
    np.testing.assert_allclose(told, items**2 / 40 + seeds**2 / 3, rtol=0.15)


def test_one_cluster_says_nothing_of_others():
    """The error of one cluster is the largest possible, of values from 0 to 1 or from -1 to 1."""
    assert standard_error(np.ones((1, 5)), ["same"] * 5) == 0.5
    assert standard_error(np.ones((1, 5)), ["same"] * 5, span=2.0) == 1.0


def test_resampling_in_pieces_draws_the_same(monkeypatch):
    rng = np.random.default_rng(0)
    values, clusters = rng.random((1, 90)), rng.integers(0, 40, 90)
    whole = standard_error(values, clusters)
    monkeypatch.setattr(standard_errors, "_MAX_NUMBERS", 40 * 7)  # 7 resamples at a time
    standard_errors._resamples.cache_clear()
    assert len(next(standard_errors._pieces(40))) == 7
    np.testing.assert_allclose(standard_error(values, clusters), whole, rtol=1e-12)
    standard_errors._resamples.cache_clear()


def test_resamples_stay_small():
    """Resamples of many clusters take a byte per cluster and sample."""
    kept = standard_errors._resamples(4000)
    assert kept.nbytes == standard_errors.SAMPLES * 4000
    assert (
        max(piece.nbytes for piece in standard_errors._pieces(4000))
        <= 8 * standard_errors._MAX_NUMBERS
    )
    assert (kept.sum(axis=1, dtype=int) == 4000).all()
