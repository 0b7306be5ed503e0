"""A benchmark's table: zero-shot and under every set of learned prompts, on the same items."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from dsd_jax.benchmarks.encoded_items import encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.splits import Split
from dsd_jax.benchmarks.table_scores import BIAS, EvalPlan, RowKey, candidate_scores
from dsd_jax.config.score_spec import COMPAT
from dsd_jax.data.examples import Examples
from dsd_jax.distributed import processes
from dsd_jax.experiment.score_cache import ScoreCache
from dsd_jax.io.terminal import advance
from dsd_jax.matching.batching import even_ranges
from dsd_jax.report import Decision
from dsd_jax.statistics import metrics, results
from dsd_jax.statistics.results import ItemGroups, Series

LARGEST = 224  # pixels of a side of a picture in a report
SHOWN = 6  # right and wrong decisions each that a report pictures
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
TOGETHER = 8192  # candidates times timesteps that are scored before they are kept


class EvaluationTable(NamedTuple):
    """What a report shows: rows, paired comparisons and decisions of some splits.

    passes: {method: rows of the UNet per item}.
    """

    rows: list[dict]
    comparisons: list[dict]
    decisions: list[Decision]
    passes: dict[str, int]


# From a split to the scores of methods that are no readings, such as a dual encoder's.
Rival = Callable[[Split], Mapping[RowKey, np.ndarray]]


def evaluate(
    encoders: Encoders,
    splits: Sequence[Split],
    asked: EvalPlan,
    kept: ScoreCache,
    rivals: Sequence[Rival] = (),
) -> EvaluationTable:
    """Score every split by every reading zero-shot, under the prompts that serve it, and by rivals.

    Args:
        encoders: of the model.
        splits: whose items.
        asked: readings and learned prompts.
        kept: where scores are kept, for a run that goes on.
        rivals: others that score the same items.
    """
    table = EvaluationTable([], [], [], {})
    for split in splits:
        scores = split_scores(encoders, split, asked, kept)
        for rival in rivals:
            scores |= rival(split)
        add_split(table, split, scores, asked, min(encoders.model.image_size, LARGEST))
    return table


def add_split(
    table: EvaluationTable,
    split: Split,
    scores: Mapping[RowKey, np.ndarray],
    asked: EvalPlan,
    side: int,
) -> None:
    """Add a split's rows, comparisons and some decisions, pictured with sides of `side` pixels."""
    pictures, captions = next(iter(scores.values())).shape[1:]
    parts, chances = ItemGroups(split.kinds, split.clusters), metrics.chances(pictures, captions)
    table.passes.update({one.label: one.passes(pictures, captions) for one in asked.readings})
    found: dict[tuple[str, str | None], list[np.ndarray]] = {}
    for key, values in scores.items():
        found.setdefault((key.method, key.prompts or None), []).append(values)
    series = [series_of(split, label, prompts, every) for (label, prompts), every in found.items()]
    batches = ItemGroups(split.kinds, metrics.compat_batches(split.kinds))
    for one in series:
        # What is averaged over a batch is right or wrong as a batch.
        parts_of = batches if one.method.endswith(COMPAT) else parts
        table.rows.extend(_with_refusals(results.rows(one, parts_of, chances), one, asked))
    fair = [one for one in series if not one.method.endswith(COMPAT)]
    table.comparisons.extend(results.comparisons(fair, parts))
    best = max(fair or series, key=lambda one: one.main.mean())
    table.decisions.extend(pictured(split, best, found[best.method, best.prompts][0], side))


def _with_refusals(rows: Sequence[dict], series: Series, asked: EvalPlan) -> list[dict]:
    """Return the rows, with what held-out shots refused of the prompts that they are scored by."""
    learned = asked.learned.get(series.prompts or "")
    methods = [one.method for one in asked.readings if one.label == series.method]
    refused = learned.refused(methods[0]) if learned and methods else ""
    return [{**row, "refused": refused} if refused else row for row in rows]


def series_of(
    split: Split, label: str, prompts: str | None, scores: Sequence[np.ndarray]
) -> Series:
    """The outcomes of (n, P, J) scores of every seed."""
    every = [metrics.outcomes(values) for values in scores]
    outcomes = {metric: np.stack([one[metric] for one in every]) for metric in every[0]}
    name = split.name.removesuffix("/test")
    return Series(label, prompts, name, outcomes)


def split_scores(
    encoders: Encoders, split: Split, asked: EvalPlan, kept: ScoreCache
) -> dict[RowKey, np.ndarray]:
    """{key: (n, P, J)} of all that is asked, on all hosts, each of which scored its part."""
    examples = split.examples
    here = [split.numbers[i] for i in processes.local_range(split.count)]
    shape = len(examples.pictures[0]) * len(examples.captions[0])
    times = max(reading.stages[-1][1] for reading in asked.readings)
    blocks = even_ranges(len(here), max(1, TOGETHER // (shape * times)))
    total, hidden, found = 100 * len(blocks), not processes.is_main(), []
    with tqdm(total=total, desc=split.name, disable=hidden, bar_format=_BAR) as bar:
        for block in blocks:
            numbers = [here[i] for i in block]
            compute = _computing(encoders, examples, numbers, asked, bar)
            found.append(kept.scores(_identity(split, numbers), compute))
            advance(bar, 100 * len(found) - bar.n)
    mine = {key: np.concatenate([one[key] for one in found])[: len(here)] for key in found[0]}
    return averaged(processes.gather_each(mine, split.count), asked, split.kinds)


def _computing(
    encoders: Encoders,
    examples: Examples,
    numbers: Sequence[int],
    asked: EvalPlan,
    bar: tqdm,
) -> Callable[[], dict[RowKey, np.ndarray]]:
    def compute() -> dict[RowKey, np.ndarray]:
        items = encode(encoders, examples, numbers)
        return candidate_scores(
            encoders.model, items, asked, lambda share: advance(bar, 100 * share)
        )

    return compute


def _identity(split: Split, numbers: Sequence[int]) -> str:
    """Of some items, as far as it does not take reading their pictures."""
    examples = split.examples
    rows = [[i, examples.captions[i], [str(key) for key in examples.pictures[i]]] for i in numbers]
    return json.dumps([split.name, rows])


def averaged(
    scores: Mapping[RowKey, np.ndarray], asked: EvalPlan, kinds: list[str]
) -> dict[RowKey, np.ndarray]:
    """The same with compat readings' parts put together as the authors' code does."""
    whole = {key: values for key, values in scores.items() if not key.method.endswith(BIAS)}
    for reading in asked.readings:
        if reading.compat:
            key, bias = RowKey(reading.label), RowKey(reading.label + BIAS)
            whole[key] = metrics.compat(whole[key], scores.get(bias), kinds)
    return whole


def pictured(split: Split, series: Series, scores: np.ndarray, side: int) -> list[Decision]:
    """Some wrong and some right decisions: the matching candidate and the best of the others."""
    first = scores[:, :, 0] if scores.shape[1] > 1 else scores[:, 0]
    rival = 1 + first[:, 1:].argmax(axis=1)
    right = first[:, 0] > first[:, 1:].max(axis=1)
    rows = [*np.flatnonzero(~right)[:SHOWN], *np.flatnonzero(right)[:SHOWN]]
    return [decision(split, series, first, int(row), int(rival[row]), side) for row in rows]


def decision(
    split: Split, series: Series, scores: np.ndarray, row: int, rival: int, side: int
) -> Decision:
    """One choice as a report pictures it."""
    number, examples = split.numbers[row], split.examples
    keys, captions = examples.pictures[number], examples.captions[number]
    several = len(keys) > 1
    pictures = examples.images([keys[0], keys[rival if several else 0]], side)
    return Decision(
        caption=captions[0],
        positive=pictures[0],
        negative=pictures[1],
        positive_score=float(scores[row, 0]),
        negative_score=float(scores[row, rival]),
        method=series.method,
        prompts=series.prompts,
        kind=examples.kinds[number],
        split=series.split,
        other_caption=None if several else captions[rival],
    )


def identity_of(encoders: Encoders, asked: EvalPlan, settings: Any) -> str:
    """Of all that decides scores besides the items."""
    from dsd_jax.training.state_digest import digest
    from dsd_jax.version import __version__

    model = encoders.model
    encoding = model.image_identity()[1], model.text_identity()[1]
    trees = {label: [*map(digest, one.prompts)] for label, one in asked.learned.items()}
    served = {label: list(one.methods) for label, one in asked.learned.items()}
    labels = [(reading.label, reading.stages) for reading in asked.readings]
    return json.dumps(
        [
            *(__version__, model.weights_digest, repr(model.unet), repr(model.schedule)),
            *encoding,
            *(labels, asked.layers, asked.seed, asked.timesteps, trees, served, settings),
        ]
    )
