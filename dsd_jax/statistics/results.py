"""From outcomes to rows of a report, with standard errors, and paired comparisons."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.statistics.standard_errors import standard_error


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


class ItemGroups(NamedTuple):
    """What a split's items are: which kind and cluster each is of."""

    kinds: Sequence[str]
    clusters: Sequence[Hashable]

    def each(
        self, values: np.ndarray, span: float = 1.0
    ) -> Iterator[tuple[str, np.ndarray, float]]:
        """Yield (kind, values (S, n of it), standard error) of every kind, then of all as "mean".

        "mean" is over all items, so kinds count by their numbers of items. `span` is the width of
        the range that values can lie in.
        """
        kinds, clusters = np.asarray(self.kinds), list(self.clusters)
        names = list(dict.fromkeys(self.kinds))
        for name in [*names, "mean"] if len(names) > 1 else ["mean"]:
            rows = np.arange(len(kinds)) if name == "mean" else np.flatnonzero(kinds == name)
            some = values[:, rows]
            yield name, some, standard_error(some, [clusters[row] for row in rows], span)


def rows(series: Series, parts: ItemGroups, chances: Mapping[str, float]) -> list[dict]:
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


def compare(series: Series, baseline: Series, parts: ItemGroups) -> list[dict]:
    """Return differences to a baseline on the same items and noise, paired item by item.

    Few-shot series of one run learn from the same draws of shots, so their seeds are paired, too.
    """
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
        for kind, values, error in parts.each(paired(series, baseline), span=2.0)
    ]


def paired(series: Series, baseline: Series) -> np.ndarray:
    """Return the differences of the first metric, (S, n), seed by seed.

    A zero-shot series has one seed, which is compared with all of the other's. Of unequally many
    the draws that both have are compared.
    """
    one, other = series.main, baseline.main
    if min(len(one), len(other)) > 1:
        shared = min(len(one), len(other))
        one, other = one[:shared], other[:shared]
    return one - other


def comparisons(series: Sequence[Series], parts: ItemGroups, rival: str = "clip") -> list[dict]:
    """Of one split: every few-shot series against its own zero-shot, all against the best one, and
    against the rival method with as many shots.

    The best zero-shot is picked on these same items, which flatters it, not the others.
    """
    zero = {one.method: one for one in series if one.prompts is None}
    if not zero:
        return []
    best = max(zero.values(), key=lambda one: one.main.mean())
    rivals = {shots_of(one.prompts): one for one in series if one.method == rival}
    found = []
    for one in series:
        baselines = [zero[one.method], best]
        if one.method != rival and rivals:
            baselines.append(rivals.get(shots_of(one.prompts), rivals[None]))
        for baseline in {id(x): x for x in baselines if x is not one}.values():
            found += compare(one, baseline, parts)
    return found


def shots_of(prompts: str | None) -> str | None:
    """The number of shots that ends a label, as in "lora-256"."""
    return prompts and prompts.rpartition("-")[2]
