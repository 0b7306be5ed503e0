"""Scores of a piece of a benchmark's items: of every reading, frozen and under prompts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems
from dsd_jax.benchmarks.score_jobs import (
    ScoreJob,
    compat_score_jobs,
    per_timestep_scores,
    score_job,
)
from dsd_jax.config.score_spec import ScoreSpec
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.matching.batching import ProgressFn
from dsd_jax.matching.score_functions import check_finite, mean_over_timesteps
from dsd_jax.prompts.prompt_metadata import same_timesteps

BIAS = "/bias"  # ends the name of what compat readings add to the average of the attention


class LearnedPrompts(NamedTuple):
    """Prompts of one recipe and number of shots, a pytree per seed.

    methods: that they serve. timesteps: how many they were learned at; None is the config's number.
    kinds: that the recipe learns; empty where it is not known.
    """

    methods: Sequence[str]
    prompts: Sequence[Mapping[str, Any]]
    timesteps: int | None = None
    kinds: Sequence[str] = ()

    def refused(self, method: str) -> str:
        """Return what held-out shots refused, such as "lora 2/3" (draws); empty for nothing."""
        lacking = {
            kind: sum(not _holds(tree, kind, method) for tree in self.prompts)
            for kind in self.kinds
        }
        draws = len(self.prompts)
        return ", ".join(f"{kind} {count}/{draws}" for kind, count in lacking.items() if count)


def _holds(tree: Mapping[str, Any], kind: str, method: str) -> bool:
    """Return whether prompts have something of a kind for a method; refused weights are zeros."""
    if kind != "weights":
        return bool(tree.get(kind))
    learned = tree.get("weights", {}).get(method, {})
    return any(np.any(leaf) for leaf in jax.tree.leaves(learned))


class RowKey(NamedTuple):
    """What tells the scores of a table's rows apart; keys can be sorted, as JAX sorts keys.

    method: the reading's label, or a dual encoder's name. prompts: the label of learned prompts,
    such as "lora-256", or of fine-tuned weights; empty for zero-shot. seed: the number of their
    draw.
    """

    method: str
    prompts: str = ""
    seed: int = 0


class EvalPlan(NamedTuple):
    """All that is asked of every item.

    learned: by label, such as "lora-256". timesteps: how many they were learned for.
    """

    readings: Sequence[ScoreSpec]
    layers: tuple[str, ...]
    timesteps: int
    seed: int
    learned: Mapping[str, LearnedPrompts]

    def served(self, label: str) -> list[ScoreSpec]:
        """Return the readings that some prompts serve: plain ones at what they were learned for."""
        learned = self.learned[label]
        count = learned.timesteps or self.timesteps
        return [
            one
            for one in self.readings
            if one.is_plain
            and one.method in learned.methods
            and same_timesteps(one.stages[0][1], count)
        ]


def candidate_scores(
    model: Model, items: EncodedItems, asked: EvalPlan, tick: ProgressFn = lambda share: None
) -> dict[RowKey, np.ndarray]:
    """{key: (n, P, J) float32} of all that is asked.

    Compat readings come in two parts, as nothing is averaged over items here.
    """
    tasks = _tasks(model, asked)
    pruned = [reading for reading in asked.readings if len(reading.stages) > 1]
    share = 1 / (1 + len(pruned))
    steps = per_timestep_scores(
        model, items, list(tasks.values()), asked.seed, lambda part: tick(part * share)
    )
    found = {
        key: check_finite(np.asarray(mean_over_timesteps(values, task.weights)), model.name)
        for (key, task), values in zip(tasks.items(), steps, strict=True)
    }
    for reading in pruned:
        key = RowKey(reading.label)
        first = steps[list(tasks).index(key)]
        found[key] = _prune(model, items, reading, asked, first)
        tick(share)
    return found


def _tasks(model: Model, asked: EvalPlan) -> dict[RowKey, ScoreJob]:
    """Return the first round of every row."""
    tasks: dict[RowKey, ScoreJob] = {}
    for reading in asked.readings:
        label = reading.label
        if reading.compat:
            parts = compat_score_jobs(model.unet, reading, asked.layers)
            tasks |= zip([RowKey(label), RowKey(label + BIAS)], parts, strict=False)
        else:
            tasks[RowKey(label)] = score_job(model.unet, reading, asked.layers)
    for prompts, learned in asked.learned.items():
        for seed, tree in enumerate(learned.prompts):
            for reading in asked.served(prompts):
                key = RowKey(reading.label, prompts, seed)
                tasks[key] = score_job(model.unet, reading, asked.layers, tree)
    return tasks


def _prune(
    model: Model, items: EncodedItems, reading: ScoreSpec, asked: EvalPlan, steps: np.ndarray
) -> np.ndarray:
    """(n, P, J): the later rounds of a reading whose first round's steps are (n, P, J, T).

    What is dropped in a round stays in the order of its last scores, below all that is kept.
    """
    shape = steps.shape[:3]
    steps = steps.reshape(len(steps), -1, steps.shape[-1])
    times = reading.timesteps()
    left = np.tile(np.arange(steps.shape[1]), (len(steps), 1))  # (n, candidates still there)
    scores = steps.mean(axis=-1)
    for stage in range(1, len(reading.stages)):
        best = np.argsort(-np.take_along_axis(scores, left, 1), axis=1, kind="stable")
        kept = np.sort(best[:, : reading.stages[stage][0]], axis=1)
        left = np.take_along_axis(left, kept, axis=1)
        steps = np.take_along_axis(steps, kept[..., None], axis=1)
        task = score_job(model.unet, reading, asked.layers, stage=stage)
        (new,) = per_timestep_scores(model, items.select_candidates(left), [task], asked.seed)
        steps = np.concatenate([steps, new.reshape(*left.shape, -1)], axis=-1)
        times = np.concatenate([times, task.timesteps])
        now = steps[..., np.isin(times, reading.timesteps(stage))].mean(axis=-1)
        scores = _above(scores, left, now)
    return scores.reshape(shape)


def _above(scores: np.ndarray, left: np.ndarray, now: np.ndarray) -> np.ndarray:
    """`scores` (n, K) with those of the columns `left` (n, k) replaced by `now`, and the others
    moved as a whole below the lowest of these.
    """
    dropped = np.ones(scores.shape, bool)
    np.put_along_axis(dropped, left, False, axis=1)
    highest = np.max(np.where(dropped, scores, -np.inf), axis=1, keepdims=True, initial=-np.inf)
    lowest = now.min(axis=1, keepdims=True)
    gap = np.maximum(1.0, np.abs(lowest)) * 1e-3
    with np.errstate(invalid="ignore"):  # where nothing is dropped
        moved = np.where(dropped, scores - highest + lowest - gap, 0.0)
    np.put_along_axis(moved, left, now, axis=1)
    return moved.astype(np.float32)
