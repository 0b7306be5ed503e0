"""Rows of a table, and their scores for some items: zero-shot and under learned prompts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
from dsd_jax.io.progress import UNSEEN, Work
from dsd_jax.matching.score_functions import check_finite, mean_over_timesteps
from dsd_jax.prompts.prompt_compatibility import same_timesteps

BIAS = "/bias"  # ends the name of what compat scores add to the average of the attention


class LearnedPrompts(NamedTuple):
    """Prompts of one recipe and number of shots, a pytree per seed.

    Attributes:
        methods: that the prompts were learned for.
        prompts: a pytree per seed.
        timesteps: how many they were learned at; None is the config's number.
        kinds: that the recipe learns; empty where that is not known.
    """

    methods: Sequence[str]
    prompts: Sequence[Mapping[str, Any]]
    timesteps: int | None = None
    kinds: Sequence[str] = ()

    def refused(self, method: str) -> str:
        """Return the kinds that held-out shots refused, as "lora 2/3" (of draws); "" for none."""
        draws = len(self.prompts)
        return self._shares({kind: draws - n for kind, n in self._held(method).items()})

    def kept(self, method: str) -> str:
        """Return the kinds that held-out shots kept, as "lora 1/3" (of draws); "" for none."""
        return self._shares(self._held(method))

    def _held(self, method: str) -> dict[str, int]:
        """Return in how many draws there is something of each kind."""
        return {
            kind: sum(_holds(prompts, kind, method) for prompts in self.prompts)
            for kind in self.kinds
        }

    def _shares(self, counts: Mapping[str, int]) -> str:
        draws = len(self.prompts)
        return ", ".join(f"{kind} {count}/{draws}" for kind, count in counts.items() if count)


def _holds(prompts: Mapping[str, Any], kind: str, method: str) -> bool:
    """Return whether prompts have something of a kind for a method; refused weights are zeros."""
    if kind != "weights":
        return bool(prompts.get(kind))
    weights = prompts.get("weights", {}).get(method, {})
    return any(np.any(leaf) for leaf in jax.tree.leaves(weights))


class RowKey(NamedTuple):
    """The id of a row of scores; ids can be sorted, as JAX sorts the keys of pytrees.

    Attributes:
        method: the label of a `ScoreSpec`, or the name of a baseline.
        prompts: the label of learned prompts, such as "lora-256", or of fine-tuned params; empty
            for zero-shot.
        seed: the number of their draw.
    """

    method: str
    prompts: str = ""
    seed: int = 0


class EvalPlan(NamedTuple):
    """The scores that are computed for every item.

    Attributes:
        specs: the scores.
        layers: whose attention scores are averaged.
        timesteps: how many prompts were learned for, where they do not say.
        seed: of the noise.
        learned: prompts by label, such as "lora-256".
    """

    specs: Sequence[ScoreSpec]
    layers: tuple[str, ...]
    timesteps: int
    seed: int
    learned: Mapping[str, LearnedPrompts]

    def served_specs(self, label: str) -> list[ScoreSpec]:
        """Return the scores that prompts serve: plain ones at the timesteps of learning."""
        learned = self.learned[label]
        count = learned.timesteps or self.timesteps
        return [
            spec
            for spec in self.specs
            if spec.is_plain
            and spec.method in learned.methods
            and same_timesteps(spec.stages[0][1], count)
        ]


def candidate_scores(
    model: Model, items: EncodedItems, plan: EvalPlan, work: Work = UNSEEN
) -> dict[RowKey, np.ndarray]:
    """Return {row: scores (n, P, J) float32} of all that is planned.

    Compat scores come in two parts, attention and bias: nothing is averaged over items here.

    Args:
        model: frozen.
        items: n items of P images and J captions.
        plan: what to compute.
        work: that these scores are.
    """
    jobs = _first_jobs(model, plan)
    pruned = [spec for spec in plan.specs if len(spec.stages) > 1]
    share = 1 / (1 + len(pruned))
    per_job = per_timestep_scores(
        model, items, list(jobs.values()), plan.seed, work=work.part(share)
    )
    per_timestep = dict(zip(jobs, per_job, strict=True))
    scores = {}
    for key, job in jobs.items():
        means = mean_over_timesteps(jnp.asarray(per_timestep[key]), job.weights)
        scores[key] = check_finite(np.asarray(means), model.name)
    for spec in pruned:
        key = RowKey(spec.label)
        scores[key] = _prune(model, items, spec, plan, first=per_timestep[key])
        work.advance(share)
    return scores


def _first_jobs(model: Model, plan: EvalPlan) -> dict[RowKey, ScoreJob]:
    """Return the job for the first stage of every row."""
    jobs: dict[RowKey, ScoreJob] = {}
    for spec in plan.specs:
        if spec.compat:
            parts = compat_score_jobs(model.unet, spec, plan.layers)
            jobs |= zip([RowKey(spec.label), RowKey(spec.label + BIAS)], parts, strict=False)
        else:
            jobs[RowKey(spec.label)] = score_job(model.unet, spec, plan.layers)
    for label, learned in plan.learned.items():
        for seed, prompts in enumerate(learned.prompts):
            for spec in plan.served_specs(label):
                job = score_job(model.unet, spec, plan.layers, prompts)
                jobs[RowKey(spec.label, label, seed)] = job
    return jobs


def _prune(
    model: Model, items: EncodedItems, spec: ScoreSpec, plan: EvalPlan, *, first: np.ndarray
) -> np.ndarray:
    """Return the scores (n, P, J) of the last stage, after each stage has dropped candidates.

    What a stage drops stays in the order of its last scores, below all that is kept.

    Args:
        model: frozen.
        items: with several images or several captions each, not both.
        spec: with several stages.
        plan: that the score is of.
        first: (n, P, J, T), scores of the first stage at every timestep.
    """
    shape = first.shape[:3]
    per_timestep = first.reshape(len(first), -1, first.shape[-1])  # (n, candidates kept, T)
    timesteps = spec.timesteps()
    kept = np.tile(np.arange(per_timestep.shape[1]), (len(first), 1))  # (n, candidates kept)
    scores = per_timestep.mean(axis=-1)
    for stage in range(1, len(spec.stages)):
        ranking = np.argsort(-np.take_along_axis(scores, kept, 1), axis=1, kind="stable")
        best = np.sort(ranking[:, : spec.stages[stage][0]], axis=1)
        kept = np.take_along_axis(kept, best, axis=1)
        per_timestep = np.take_along_axis(per_timestep, best[..., None], axis=1)
        job = score_job(model.unet, spec, plan.layers, stage=stage)
        (new,) = per_timestep_scores(model, items.select_candidates(kept), [job], plan.seed)
        per_timestep = np.concatenate([per_timestep, new.reshape(*kept.shape, -1)], axis=-1)
        timesteps = np.concatenate([timesteps, job.timesteps])
        is_averaged = np.isin(timesteps, spec.timesteps(stage))
        scores = _above_dropped(scores, kept, per_timestep[..., is_averaged].mean(axis=-1))
    return scores.reshape(shape)


def _above_dropped(scores: np.ndarray, kept: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Return scores with new ones for the kept candidates, and all others moved below these.

    Args:
        scores: (n, K), of all candidates.
        kept: (n, k), indices of candidates.
        new: (n, k), their scores.
    """
    is_dropped = np.ones(scores.shape, bool)
    np.put_along_axis(is_dropped, kept, False, axis=1)
    highest = np.max(np.where(is_dropped, scores, -np.inf), axis=1, keepdims=True, initial=-np.inf)
    lowest = new.min(axis=1, keepdims=True)
    gap = np.maximum(1.0, np.abs(lowest)) * 1e-3
    with np.errstate(invalid="ignore"):  # where nothing is dropped
        moved = np.where(is_dropped, scores - highest + lowest - gap, 0.0)
    np.put_along_axis(moved, kept, new, axis=1)
    return moved.astype(np.float32)
