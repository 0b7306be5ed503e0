"""Standard errors by resampling what is independent: clusters of items, and seeds."""

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np

SAMPLES = 2000


def standard_error(values: np.ndarray, clusters: Sequence[Hashable]) -> float:
    """Of the mean of (S, n) values: from the choice of items, and from that of shots and seeds.

    Items are resampled in their clusters, for those of one share pictures. One cluster alone says
    nothing of others: then it is one half, the most that a mean of values from 0 to 1 can have.
    """
    names = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    number = np.array([names[name] for name in clusters])
    if len(names) < 2:
        return 0.5
    items = values.mean(axis=0)
    sums, sizes = np.bincount(number, items), np.bincount(number)
    weights = _resamples(len(names))
    means = (weights @ sums) / (weights @ sizes)
    variance = means.var() * len(names) / (len(names) - 1)
    if len(values) > 1:
        variance += np.var(values.mean(axis=1), ddof=1) / len(values)
    return float(np.sqrt(variance))


@lru_cache(maxsize=16)
def _resamples(count: int) -> np.ndarray:
    """How often each of `count` clusters is in each sample: (SAMPLES, count); always the same."""
    rng = np.random.default_rng(count)
    return rng.multinomial(count, np.full(count, 1 / count), size=SAMPLES).astype(np.float32)
