"""From scores to rows of a report: accuracy with standard errors, and paired comparisons."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

METRIC = "accuracy"
CHANCE = 0.5  # two candidates


class Series(NamedTuple):
    """How one method under one kind of prompts did on the items of a split.

    correct: (S, n) in {0, 0.5, 1}, one row per seed of shots and initialisation; S = 1 zero-shot.
    """

    method: str
    prompts: str | None
    split: str
    correct: np.ndarray


def correct(scores: np.ndarray) -> np.ndarray:
    """Whether the matching candidate, the first, wins: (n, 2) -> (n,); a tie counts one half.

    Raises:
        FloatingPointError: a score is not a number, so it can't be compared.
    """
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    return (scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])


def standard_error(values: np.ndarray) -> float:
    """Of the mean of (S, n) values: from the choice of items, and from that of shots and seeds."""
    seeds, items = values.shape
    variance = np.var(values.mean(axis=0), ddof=1) / items
    if seeds > 1:
        variance += np.var(values.mean(axis=1), ddof=1) / seeds
    return float(np.sqrt(variance))


def rows(series: Series, kinds: Sequence[str]) -> list[dict]:
    """A row of the report for each kind of negative, and one for all items."""
    return [
        {
            "method": series.method,
            "prompts": series.prompts,
            "split": series.split,
            "kind": kind,
            "metric": METRIC,
            "value": float(values.mean()),
            "stderr": standard_error(values),
            "n": values.shape[1],
            "chance": CHANCE,
        }
        for kind, values in _by_kind(series.correct, kinds).items()
    ]


def compare(series: Series, baseline: Series, kinds: Sequence[str]) -> list[dict]:
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
            "stderr": standard_error(values),
            "n": values.shape[1],
        }
        for kind, values in _by_kind(series.correct - baseline.correct.mean(0), kinds).items()
    ]


def _by_kind(values: np.ndarray, kinds: Sequence[str]) -> Mapping[str, np.ndarray]:
    names = np.asarray(kinds)
    parts = {str(kind): values[:, names == kind] for kind in dict.fromkeys(kinds)}
    return {**parts, "mean": values}


def comparisons(series: Sequence[Series], kinds: Sequence[str]) -> list[dict]:
    """Of one split: every few-shot series against its own zero-shot, and against the best one.

    The best zero-shot is picked on these same items, which flatters it, not the few-shot series.
    """
    zero = {one.method: one for one in series if one.prompts is None}
    best = max(zero.values(), key=lambda one: one.correct.mean())
    found = []
    for one in series:
        if one.prompts is not None:
            found += compare(one, zero[one.method], kinds)
            if one.method != best.method:
                found += compare(one, best, kinds)
    return found
