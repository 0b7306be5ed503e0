"""Rows of a report made of outcomes, with standard errors, and paired comparisons of rows."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.statistics.intervals import Interval, difference_interval, share_interval
from dsd_jax.statistics.standard_errors import standard_error


class Series(NamedTuple):
    """The outcomes of one method under one kind of prompts on the items of a split.

    Attributes:
        method: the label of a score or the name of a baseline.
        prompts: the label of the prompts; None for zero-shot.
        split: the name of the split.
        outcomes: {metric: (S, n) in [0, 1]}, one row per seed of shots and initialization; S = 1
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


class KindValues(NamedTuple):
    """The values of the items of one kind, or of all as "mean".

    Attributes:
        kind: its name.
        values: (S, n of it).
        stderr: of their mean.
        clusters: the number of independent ones among the items.
    """

    kind: str
    values: np.ndarray
    stderr: float
    clusters: int


class ItemGroups(NamedTuple):
    """The kind and the cluster of each item of a split."""

    kinds: Sequence[str]
    clusters: Sequence[Hashable]

    def by_kind(self, values: np.ndarray, span: float = 1.0) -> Iterator[KindValues]:
        """Yield the values of every kind, then of all as "mean".

        "mean" is over all items, so kinds count by their numbers of items. `span` is the width of
        the range that values can lie in.
        """
        kinds, clusters = np.asarray(self.kinds), list(self.clusters)
        names = list(dict.fromkeys(self.kinds))
        for name in [*names, "mean"] if len(names) > 1 else ["mean"]:
            rows = np.arange(len(kinds)) if name == "mean" else np.flatnonzero(kinds == name)
            of_kind, own = values[:, rows], [clusters[row] for row in rows]
            yield KindValues(name, of_kind, standard_error(of_kind, own, span), len(set(own)))


def rows(series: Series, groups: ItemGroups, chances: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return a row of the report for each metric and kind, and one for all items.

    Where few items or an extreme share make the standard error misleading, the row has the
    "interval" of 95 %, too.
    """
    return [
        {
            "method": series.method,
            "prompts": series.prompts,
            "split": series.split,
            "kind": of_kind.kind,
            "metric": metric,
            "value": float(of_kind.values.mean()),
            "stderr": of_kind.stderr,
            "n": of_kind.values.shape[1],
            "chance": chances[metric],
            **_interval(
                share_interval(float(of_kind.values.mean()), of_kind.stderr, of_kind.clusters)
            ),
        }
        for metric, outcomes in series.outcomes.items()
        for of_kind in groups.by_kind(outcomes)
    ]


def _interval(interval: Interval | None) -> dict[str, list[float]]:
    return {} if interval is None else {"interval": list(interval)}


def compare(series: Series, baseline: Series, groups: ItemGroups) -> list[dict[str, Any]]:
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
            "kind": of_kind.kind,
            "difference": float(of_kind.values.mean()),
            "stderr": of_kind.stderr,
            "n": of_kind.values.shape[1],
            **_interval(difference_interval(of_kind.values, of_kind.clusters)),
        }
        for of_kind in groups.by_kind(paired(series, baseline), span=2.0)
    ]


def paired(series: Series, baseline: Series) -> np.ndarray:
    """Return the differences of the first metric, (S, n), seed by seed.

    A zero-shot series has one seed, which is compared with all of the other's. Of unequally many
    the draws that both have are compared.
    """
    outcomes, others = series.main, baseline.main
    if min(len(outcomes), len(others)) > 1:
        shared = min(len(outcomes), len(others))
        outcomes, others = outcomes[:shared], others[:shared]
    return outcomes - others


def comparisons(
    all_series: Sequence[Series], groups: ItemGroups, dual_encoder: str = "clip"
) -> list[dict[str, Any]]:
    """Compare every few-shot series of a split with its own zero-shot, and all with two baselines.

    The baselines are the best zero-shot series, and the dual encoder with as many shots. The best
    zero-shot is picked on these same items, which flatters it, not the others.

    Args:
        all_series: of one split.
        groups: the kinds and clusters of its items.
        dual_encoder: the method of the second baseline, if it is among the series.
    """
    zero_shot = {series.method: series for series in all_series if series.prompts is None}
    if not zero_shot:
        return []
    best = max(zero_shot.values(), key=lambda series: series.main.mean())
    encoders = {shots_of(x.prompts): x for x in all_series if x.method == dual_encoder}
    rows = []
    for series in all_series:
        baselines = [zero_shot[series.method], best]
        if series.method != dual_encoder and encoders:
            baselines.append(encoders.get(shots_of(series.prompts), encoders[None]))
        for baseline in {id(x): x for x in baselines if x is not series}.values():
            rows += compare(series, baseline, groups)
    return rows


def shots_of(prompts: str | None) -> str | None:
    """Return the number of shots that ends a label, as in "lora-256"; None for zero-shot."""
    return prompts and prompts.rpartition("-")[2]
