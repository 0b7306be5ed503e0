"""From outcomes to rows of a report, with standard errors, and paired comparisons."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.bootstrap import standard_error


class Series(NamedTuple):
    """How one method under one kind of prompts did on the items of a split.

    outcomes: {metric: (S, n) in [0, 1]}, one row per seed of shots and initialisation; S = 1
        zero-shot. The first metric is what methods are compared by.
    """

    method: str
    prompts: str | None
    split: str
    outcomes: Mapping[str, np.ndarray]

    @property
    def main(self) -> np.ndarray:
        """The outcomes by the first metric, (S, n)."""
        return next(iter(self.outcomes.values()))


class Parts(NamedTuple):
    """What a split's items are: which kind and cluster each is of."""

    kinds: Sequence[str]
    clusters: Sequence[Hashable]

    def each(self, values: np.ndarray) -> Iterator[tuple[str, np.ndarray, float]]:
        """(kind, values (S, n of it), standard error) of every kind, then of all as "mean"."""
        kinds, clusters = np.asarray(self.kinds), list(self.clusters)
        names = list(dict.fromkeys(self.kinds))
        for name in [*names, "mean"] if len(names) > 1 else ["mean"]:
            rows = np.arange(len(kinds)) if name == "mean" else np.flatnonzero(kinds == name)
            some = values[:, rows]
            yield name, some, standard_error(some, [clusters[row] for row in rows])


def rows(series: Series, parts: Parts, chances: Mapping[str, float]) -> list[dict]:
    """A row of the report for each metric and kind, and one for all items."""
    return [
        {
            "method": series.method,
            "prompts": series.prompts,
            "split": series.split,
            "kind": kind,
            "metric": metric,
            "value": float(values.mean()),
            "stderr": error,
            "n": values.shape[1],
            "chance": chances[metric],
        }
        for metric, every in series.outcomes.items()
        for kind, values, error in parts.each(every)
    ]


def compare(series: Series, baseline: Series, parts: Parts) -> list[dict]:
    """Differences to a baseline on the same items and noise, paired item by item."""
    return [
        {
            "method": series.method,
            "prompts": series.prompts,
            "baseline_method": baseline.method,
            "baseline_prompts": baseline.prompts,
            "split": series.split,
            "kind": kind,
            "difference": float(values.mean()),
            "stderr": error,
            "n": values.shape[1],
        }
        for kind, values, error in parts.each(series.main - baseline.main.mean(0))
    ]


def comparisons(series: Sequence[Series], parts: Parts) -> list[dict]:
    """Of one split: every few-shot series against its own zero-shot, all against the best one.

    The best zero-shot is picked on these same items, which flatters it, not the others.
    """
    zero = {one.method: one for one in series if one.prompts is None}
    if not zero:
        return []
    best = max(zero.values(), key=lambda one: one.main.mean())
    found = []
    for one in series:
        if one.prompts is not None:
            found += compare(one, zero[one.method], parts)
        if one is not best and (one.prompts is None or one.method != best.method):
            found += compare(one, best, parts)
    return found
