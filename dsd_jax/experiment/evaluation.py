"""Evaluation of an experiment: scores of its splits, summarized into a table and a report.

The data flow: an `EvalPlan` and a `Split` give {row: scores} in `score_split`; `summarize_split`
turns them into rows, comparisons and decisions to show; `evaluate` writes the report.
"""

import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.benchmarks.encoded_items import encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.splits import Split
from dsd_jax.benchmarks.table_rows import (
    BIAS,
    EvalPlan,
    LearnedPrompts,
    RowKey,
    candidate_scores,
)
from dsd_jax.clip.fine_tuning import TunedClip
from dsd_jax.config.score_spec import COMPAT
from dsd_jax.data.examples import Examples
from dsd_jax.diffusion.model_facts import device_fact
from dsd_jax.distributed import processes
from dsd_jax.experiment.clip_baseline import NAME as CLIP
from dsd_jax.experiment.clip_baseline import clip_scores
from dsd_jax.experiment.decision_choice import pick_decisions, with_maps
from dsd_jax.experiment.run_record import details_of, header_of
from dsd_jax.experiment.run_times import remember_seconds
from dsd_jax.experiment.score_cache import ScoreCache, scores_identity
from dsd_jax.experiment.setup import Experiment
from dsd_jax.experiment.workdir import Workdir
from dsd_jax.io.progress import Stage, Work
from dsd_jax.io.terminal import output_width
from dsd_jax.matching.call_plan import even_ranges
from dsd_jax.report import Decision, best_rows, print_table, report_files
from dsd_jax.statistics import metrics, results
from dsd_jax.statistics.results import ItemGroups, Series

SCORED_TOGETHER = 8192  # candidates times timesteps, after which scores are written to the cache


class SplitResults(NamedTuple):
    """A report's part on one split.

    Attributes:
        rows: of the table.
        comparisons: paired differences between rows.
        decisions: that are shown with their images.
        passes: {method: rows of the UNet per item}.
    """

    rows: list[dict[str, Any]]
    comparisons: list[dict[str, Any]]
    decisions: list[Decision]
    passes: dict[str, int]


def evaluate(
    experiment: Experiment,
    learned: Mapping[str, LearnedPrompts],
    tuned: Mapping[str, Sequence[TunedClip]],
    *,
    command: str = "",
) -> None:
    """Score the experiment's splits, print the table and write the report.

    Args:
        experiment: whose splits are scored by the frozen model, and by the CLIP if there is one.
        learned: prompts by label, which the model is scored under, too.
        tuned: fine-tuned CLIPs by label, one per seed, which are scored, too.
        command: as it was typed, for the report.
    """
    config = experiment.config
    plan = EvalPlan(experiment.specs, experiment.layers, config.timesteps, config.seed, learned)
    identity = scores_identity(experiment.model, plan, config.data.model_dump(mode="json"))
    cache = ScoreCache(experiment.folder / "scores", identity)
    clips = {label: [each.clip for each in of_seeds] for label, of_seeds in tuned.items()}
    parts, shown = [], experiment.progress
    for split in experiment.splits:
        scores = score_split(experiment.encoders, split, plan, cache, progress=shown)
        if experiment.clip:
            scores |= clip_scores(experiment.clip, clips, split, progress=shown)
        with Stage(f"standard errors of {split.name}", shown=shown):
            parts.append(summarize_split(split, scores, plan, tuned))
    if not processes.is_main():
        return
    rows = [row for part in parts for row in part.rows]
    passes = {name: count for part in parts for name, count in part.passes.items()}
    decisions = [decision for part in parts for decision in part.decisions]
    with Stage("report", shown=shown) as stage:
        with stage.waiting_for("its heat maps"):
            first_of = {name: x.prompts[0] for name, x in learned.items()}
            decisions = with_maps(experiment.model, decisions, first_of)
        contents = report_files(
            header_of(experiment, command) | {"passes": passes},
            rows,
            decisions,
            [row for part in parts for row in part.comparisons],
            details=details_of(experiment, learned, tuned),
        )
    try:
        experiment.workdir.write_reports(contents)
        cache.delete()
        if not experiment.is_resumed:  # else some of the time was another start's
            _remember_time(experiment)
    finally:  # where the disk is full the terminal has the table, and the other way round
        print_table(rows, output_width())
    print_end(rows, experiment.workdir)


def _remember_time(experiment: Experiment) -> None:
    workdir, device = experiment.workdir, device_fact(experiment.model.dtype.name)
    seconds = time.monotonic() - experiment.started
    remember_seconds(workdir.command, workdir.settings, device, seconds)


def print_end(rows: Sequence[Mapping[str, Any]], workdir: Workdir) -> None:
    """Print what one looks for at the end: the best rows, and where the report is."""
    print(f"\n{best_rows(rows)}\n\nReport: {workdir.folder / 'report.html'}")


def print_finished(workdir: Workdir) -> None:
    """Print the same of a run that has ended before, from its report."""
    if not processes.is_main():
        return
    with contextlib.suppress(ValueError, LookupError, TypeError):  # somebody has changed it
        print_end(json.loads((workdir.folder / "report.json").read_text())["results"], workdir)


def score_split(
    encoders: Encoders, split: Split, plan: EvalPlan, cache: ScoreCache, *, progress: bool = False
) -> dict[RowKey, np.ndarray]:
    """Return {row: scores (n, P, J)} of all that is planned, on all hosts; each scores its part."""
    indices = [split.indices[i] for i in processes.local_range(split.count)]
    images, captions = split.shape
    timesteps = max(spec.stages[-1][1] for spec in plan.specs)
    blocks = even_ranges(len(indices), max(1, SCORED_TOGETHER // (images * captions * timesteps)))
    scores = []
    with Stage(f"scoring {split.name}", len(blocks), shown=progress) as stage:
        work = Work(stage, 1)
        for block in blocks:
            chosen = [indices[i] for i in block]
            compute = partial(_score_items, encoders, split.examples, chosen, plan=plan, work=work)
            scores.append(cache.load_or_compute(_items_identity(split, chosen), compute))
            stage.reach(len(scores))  # where the scores were in the cache, too
    # The last block is filled up to the size of the others.
    local = {key: np.concatenate([b[key] for b in scores])[: len(indices)] for key in scores[0]}
    return _average_compat(processes.gather_each(local, split.count), plan, split.kinds)


def _score_items(
    encoders: Encoders, examples: Examples, indices: Sequence[int], *, plan: EvalPlan, work: Work
) -> dict[RowKey, np.ndarray]:
    items = encode(encoders, examples, indices, work=work.part(0))
    return candidate_scores(encoders.model, items, plan, work)


def _items_identity(split: Split, indices: Sequence[int]) -> str:
    """Return the identity of items, without reading their images."""
    examples = split.examples
    rows = [[i, examples.captions[i], [str(key) for key in examples.images[i]]] for i in indices]
    return json.dumps([split.name, rows])


def _average_compat(
    scores: Mapping[RowKey, np.ndarray], plan: EvalPlan, kinds: Sequence[str]
) -> dict[RowKey, np.ndarray]:
    """Return the scores with the two parts of compat scores joined as the authors' code does."""
    joined = {key: values for key, values in scores.items() if not key.method.endswith(BIAS)}
    for spec in plan.specs:
        if spec.compat:
            key, bias = RowKey(spec.label), RowKey(spec.label + BIAS)
            joined[key] = metrics.compat(joined[key], scores.get(bias), kinds)
    return joined


def summarize_split(
    split: Split,
    scores: Mapping[RowKey, np.ndarray],
    plan: EvalPlan,
    tuned: Mapping[str, Sequence[TunedClip]],
) -> SplitResults:
    """Return the rows, comparisons and some decisions of a split.

    Args:
        split: whose items were scored.
        scores: (n, P, J) by row.
        plan: that they were computed by.
        tuned: fine-tuned CLIPs by label, one per seed.
    """
    by_prompts: dict[tuple[str, str], list[np.ndarray]] = {}
    for key, values in scores.items():
        by_prompts.setdefault((key.method, key.prompts), []).append(values)
    all_series = [
        _series(split, method, prompts, of_seeds)
        for (method, prompts), of_seeds in by_prompts.items()
    ]
    items = ItemGroups(split.kinds, split.clusters)
    # Compat scores are averaged over batches of items, which are right or wrong as a whole.
    batches = ItemGroups(split.kinds, metrics.compat_batches(split.kinds))
    chances, rows = metrics.chances(*split.shape), []
    for series in all_series:
        groups = batches if series.method.endswith(COMPAT) else items
        rows += _with_verdicts(results.rows(series, groups, chances), series, plan, tuned)
    independent = [series for series in all_series if not series.method.endswith(COMPAT)]
    best = max(independent or all_series, key=lambda series: series.main.mean())
    best_scores = by_prompts[best.method, best.prompts or ""][0]
    return SplitResults(
        rows,
        results.comparisons(independent, items),
        pick_decisions(split, best, best_scores),
        {spec.label: spec.passes(*split.shape) for spec in plan.specs},
    )


def _series(split: Split, method: str, prompts: str, scores: Sequence[np.ndarray]) -> Series:
    """Return the outcomes of scores (n, P, J), one array per seed."""
    of_seeds = [metrics.outcomes(values) for values in scores]
    outcomes = {
        metric: np.stack([outcome[metric] for outcome in of_seeds]) for metric in of_seeds[0]
    }
    return Series(method, prompts or None, split.name.removesuffix("/test"), outcomes)


def _with_verdicts(
    rows: Sequence[dict[str, Any]],
    series: Series,
    plan: EvalPlan,
    tuned: Mapping[str, Sequence[TunedClip]],
) -> list[dict[str, Any]]:
    """Return the rows with what held-out shots kept and refused of what was learned for them."""
    label = series.prompts or ""
    learned = plan.learned.get(label)
    methods = [spec.method for spec in plan.specs if spec.label == series.method]
    verdicts: dict[str, str] = {}
    if learned and methods:
        verdicts = {"kept": learned.kept(methods[0]), "refused": learned.refused(methods[0])}
    elif series.method == CLIP and label in tuned:
        draws, kept = len(tuned[label]), sum(bool(clip.kept) for clip in tuned[label])
        counts = {"kept": kept, "refused": draws - kept}
        verdicts = {name: f"{CLIP} {n}/{draws}" for name, n in counts.items() if n}
    return [{**row, **{name: text for name, text in verdicts.items() if text}} for row in rows]
