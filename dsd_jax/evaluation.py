"""A benchmark's table: zero-shot once, then every set of learned prompts, on the same items."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsd_jax import results
from dsd_jax.benchmark import Split, split_scores, split_terms, wanted_for
from dsd_jax.model import Model
from dsd_jax.report import Decision
from dsd_jax.results import Series

SHOWN = 6  # right and wrong decisions each that a report pictures


class Learned(NamedTuple):
    """Prompts of one recipe and number of shots: the methods they serve, a pytree per seed."""

    methods: Sequence[str]
    prompts: Sequence[Mapping[str, Any]]


class Table(NamedTuple):
    """What a report shows: rows, paired comparisons and decisions of some splits."""

    rows: list[dict]
    comparisons: list[dict]
    decisions: list[Decision]


def evaluate(
    model: Model,
    splits: Sequence[Split],
    names: Sequence[str],
    layers: Sequence[str],
    timesteps: np.ndarray,
    seed: int,
    learned: Mapping[str, Learned],
) -> Table:
    """Score every split by every method zero-shot, and under the prompts that serve it."""
    table = Table([], [], [])
    for split in splits:
        series, scores = split_series(model, split, names, layers, timesteps, seed, learned)
        for one in series:
            table.rows.extend(results.rows(one, split.source.kinds))
        table.comparisons.extend(results.comparisons(series, split.source.kinds))
        best = max(series, key=lambda one: one.correct.mean())
        table.decisions.extend(pictured(split, best, scores[best.method, best.prompts]))
    return table


def split_series(
    model: Model,
    split: Split,
    names: Sequence[str],
    layers: Sequence[str],
    timesteps: np.ndarray,
    seed: int,
    learned: Mapping[str, Learned],
) -> tuple[list[Series], dict[tuple[str, str | None], np.ndarray]]:
    """Every series of a split, and the scores (n, 2) of each one's first seed."""
    count = len(split.source.kinds)
    every = [tree for one in learned.values() for tree in one.prompts]
    wanted = wanted_for(model, names, layers, every)
    frozen = split_terms(model, split, timesteps, seed, wanted)
    found: dict[tuple[str, str | None], list[np.ndarray]] = {}
    for name, scores in split_scores(frozen, count, names, layers, {}).items():
        found[name, None] = [scores]
    for label, (served, trees) in learned.items():
        some = [name for name in names if name in served]
        for tree in trees:
            needed = wanted_for(model, some, layers, [tree])
            terms = split_terms(model, split, timesteps, seed, needed, tree, frozen)
            for name, scores in split_scores(terms, count, some, layers, tree).items():
                found.setdefault((name, label), []).append(scores)
    series = [
        Series(name, label, split.name.partition("/")[0], np.stack([*map(results.correct, scores)]))
        for (name, label), scores in found.items()
    ]
    return series, {key: scores[0] for key, scores in found.items()}


def pictured(split: Split, series: Series, scores: np.ndarray) -> list[Decision]:
    """Some right and some wrong decisions, of every kind in turn."""
    right = scores[:, 0] > scores[:, 1]
    numbers = [*np.flatnonzero(~right)[:SHOWN], *np.flatnonzero(right)[:SHOWN]]
    images = split.source.images(map(int, numbers))
    return [
        Decision(
            caption=split.source.captions[i],
            positive=pictures[0],
            negative=pictures[1],
            positive_score=float(scores[i, 0]),
            negative_score=float(scores[i, 1]),
            method=series.method,
            prompts=series.prompts,
            kind=split.source.kinds[i],
            split=series.split,
        )
        for i, pictures in zip(numbers, images, strict=True)
    ]
