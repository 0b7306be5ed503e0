"""Standard errors by resampling what is independent: clusters of items, and seeds."""

from collections.abc import Hashable, Iterator, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Int

Clusters = Sequence[Hashable] | np.ndarray
SAMPLES = 2000
_MAX_NUMBERS = 2**22  # of resamples that are in memory at a time as float64 or int64


def standard_error(
    values: Float[np.ndarray, "S n"], clusters: Clusters, span: float = 1.0
) -> float:
    """Return the standard error of the mean of values of S seeds and n items.

    Items are resampled in their clusters, for those of one share images.

    Args:
        values: an outcome per seed and item.
        clusters: n of them; which items belong together.
        span: the width of the range that values can lie in: 1 for accuracies, 2 for differences of
            two. One cluster alone says nothing of others: then half of it is the error, the most
            that a mean can have.
    """
    ids = cluster_ids(clusters)
    sums, sizes = np.bincount(ids, values.mean(axis=0)), np.bincount(ids)
    count = len(sizes)
    if count < 2:
        return span / 2
    means = [(piece @ sums) / (piece @ sizes) for piece in _pieces(count)]
    variance = np.concatenate(means).var() * count / (count - 1)
    if len(values) > 1:
        variance += np.var(values.mean(axis=1), ddof=1) / len(values)
    return float(np.sqrt(variance))


def cluster_ids(clusters: Clusters) -> Int[np.ndarray, " n"]:
    """Return the cluster of each item as an int: 0, 1, and so on as they first appear."""
    ids = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    return np.array([ids[name] for name in clusters], np.int64)


def _pieces(count: int) -> Iterator[np.ndarray]:
    """Yield the resamples of `count` clusters in float64 pieces of limited size."""
    resamples, rows = _resamples(count), _rows(count)
    for start in range(0, SAMPLES, rows):
        yield resamples[start : start + rows].astype(np.float64)


@lru_cache(maxsize=16)
def _resamples(count: int) -> np.ndarray:
    """Return how often each of `count` clusters is in each sample: (SAMPLES, count) uint8.

    Always the same. Bytes suffice: a cluster is drawn once on average, 256 times never.
    """
    rng, rows = np.random.default_rng(count), _rows(count)
    drawn = np.empty((SAMPLES, count), np.uint8)
    for start in range(0, SAMPLES, rows):
        piece = drawn[start : start + rows]
        piece[:] = rng.multinomial(count, np.full(count, 1 / count), size=len(piece))
    return drawn


def _rows(count: int) -> int:
    """Return how many resamples of `count` clusters are made at a time."""
    return max(1, _MAX_NUMBERS // count)
