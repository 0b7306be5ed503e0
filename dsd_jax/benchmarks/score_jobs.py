"""Per-timestep scores of all candidates, with as few passes of the UNet as serve all score jobs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, item_outputs
from dsd_jax.config.score_spec import ScoreSpec, method_named
from dsd_jax.diffusion.pipeline import Array, Model
from dsd_jax.io.progress import UNSEEN, Work
from dsd_jax.matching import score_functions
from dsd_jax.matching.call_plan import even_ranges
from dsd_jax.matching.forward import OutputSpec, Terms, output_floats, with_uncond
from dsd_jax.models.unet_config import UNetConfig

FLOATS = 2**24  # of UNet outputs that are in memory at a time, about


class ScoreJob(NamedTuple):
    """A score per candidate and timestep.

    Attributes:
        outputs: the UNet outputs that it takes.
        read: from these outputs to scores (I, C, T).
        timesteps: at which it is computed, ascending.
        prompts: the prompts pytree under which it is computed; None for the frozen model.
        weights: the learned weights of the score, if any.
    """

    outputs: OutputSpec
    read: Callable[[Terms], Array]
    timesteps: np.ndarray
    prompts: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None

    @property
    def is_frozen(self) -> bool:
        """True if the frozen model's outputs serve it, as for prompts of score weights alone."""
        return not set(self.prompts or ()) & {"lora", "tokens"}


def score_job(
    unet: UNetConfig,
    spec: ScoreSpec,
    layers: Sequence[str],
    prompts: Mapping[str, Any] | None = None,
    *,
    stage: int = 0,
) -> ScoreJob:
    """Return the job for one stage of a score, which is a mean over the timesteps of the job."""
    weights = (prompts or {}).get("weights", {}).get(spec.method)
    outputs = score_functions.required_outputs(unet, spec.method, layers, weights)
    read = partial(
        score_functions.per_timestep_scores, name=spec.method, layers=layers, weights=weights
    )
    return ScoreJob(outputs, read, spec.new_timesteps(stage), prompts, weights)


def compat_score_jobs(unet: UNetConfig, spec: ScoreSpec, layers: Sequence[str]) -> list[ScoreJob]:
    """Return jobs for the parts of the authors' score: attention, and the bias if there is any."""
    outputs = score_functions.required_outputs(unet, spec.method, layers)._replace(uncond=True)
    reads: list[Callable[[Terms], Any]] = [
        partial(score_functions.authors_attention, layers=layers)
    ]
    if method_named(spec.method).error:
        reads.append(partial(score_functions.error_term, spec.method))
    return [ScoreJob(outputs, read, spec.timesteps()) for read in reads]


def per_timestep_scores(
    model: Model,
    items: EncodedItems,
    jobs: Sequence[ScoreJob],
    seed: int,
    *,
    work: Work = UNSEEN,
) -> list[np.ndarray]:
    """Return the scores (n, P, J, T) float32 of every job.

    All of an item's candidates, and all jobs, see one noise per timestep, which depends on seed,
    item and timestep alone. Under prompts the empty caption's outputs are the frozen model's.
    Memory for outputs does not grow with the number of timesteps.

    Args:
        model: frozen.
        items: n items of P images and J captions.
        jobs: whose scores are computed.
        seed: of the noise.
        work: that these scores are.
    """
    shape = (*items.images.shape, items.captions.shape[1])
    scores = [np.empty((*shape, len(job.timesteps)), np.float32) for job in jobs]
    groups = _groups(jobs)
    total = sum(len(group.timesteps) * _pass_count(group.jobs) for group in groups)
    for group in groups:
        most = _timesteps_together(model.unet, group.jobs, shape)
        for piece in even_ranges(len(group.timesteps), most):
            timesteps = group.timesteps[piece]
            share = len(piece) * _pass_count(group.jobs) / total
            forward = partial(item_outputs, model, items, timesteps, (seed,))
            values = _run_jobs(model.unet, group.jobs, forward, work=work.part(share))
            for index, value in zip(group.members, values, strict=True):
                columns = np.searchsorted(jobs[index].timesteps, timesteps)
                scores[index][..., columns] = value.reshape(*shape, -1)
    return scores


class _Group(NamedTuple):
    """Jobs that share all timesteps which no other jobs have.

    Attributes:
        members: the indices of the jobs.
        jobs: the jobs themselves.
        timesteps: at which exactly these jobs are computed.
    """

    members: tuple[int, ...]
    jobs: list[ScoreJob]
    timesteps: np.ndarray


def _groups(jobs: Sequence[ScoreJob]) -> list[_Group]:
    """Return the timesteps of all jobs, grouped by the jobs that are computed at them."""
    timesteps_of: dict[tuple[int, ...], list[int]] = {}
    for timestep in np.unique(np.concatenate([job.timesteps for job in jobs])):
        members = tuple(i for i, job in enumerate(jobs) if timestep in job.timesteps)
        timesteps_of.setdefault(members, []).append(int(timestep))
    return [
        _Group(members, [jobs[i] for i in members], np.array(timesteps, np.int32))
        for members, timesteps in timesteps_of.items()
    ]


def _distinct_prompts(jobs: Sequence[ScoreJob]) -> list[Mapping[str, Any]]:
    """Return the prompts that need passes of their own, each pytree once."""
    trained = [job.prompts for job in jobs if job.prompts is not None and not job.is_frozen]
    return list({id(prompts): prompts for prompts in trained}.values())


def _frozen_outputs(jobs: Sequence[ScoreJob]) -> list[OutputSpec]:
    """Return the outputs of the frozen model that are needed, of each job that needs any."""
    return [job.outputs for job in jobs if job.is_frozen or job.outputs.uncond]


def _pass_count(jobs: Sequence[ScoreJob]) -> int:
    """Return how many times every candidate passes through the UNet at each timestep."""
    return len(_distinct_prompts(jobs)) + bool(_frozen_outputs(jobs))


def _timesteps_together(
    unet: UNetConfig, jobs: Sequence[ScoreJob], shape: tuple[int, int, int]
) -> int:
    """Return at how many timesteps the outputs of (n, P, J) candidates fit into `FLOATS`."""
    items, images, captions = shape
    outputs = score_functions.union(unet, [job.outputs for job in jobs])
    return max(1, FLOATS // (items * images * max(1, output_floats(unet, outputs, captions))))


def _run_jobs(
    unet: UNetConfig,
    jobs: Sequence[ScoreJob],
    forward: Callable[..., Terms],
    *,
    work: Work,
) -> list[np.ndarray]:
    """Return the scores (I, C, T) of every job.

    Args:
        unet: of the model.
        jobs: that share all timesteps.
        forward: from `outputs`, `prompts` and `work` to UNet outputs at these timesteps.
        work: as for `per_timestep_scores`.
    """
    work = work.part(1 / _pass_count(jobs))
    scores: dict[int, np.ndarray] = {}
    frozen = None
    if specs := _frozen_outputs(jobs):
        frozen = forward(outputs=score_functions.union(unet, specs), work=work)
        scores |= {i: np.asarray(job.read(frozen)) for i, job in enumerate(jobs) if job.is_frozen}
    for prompts in _distinct_prompts(jobs):
        members = {i: job for i, job in enumerate(jobs) if job.prompts is prompts}
        spec = score_functions.union(unet, [job.outputs for job in members.values()])
        terms = forward(prompts=prompts, outputs=spec._replace(uncond=False), work=work)
        if frozen is not None:
            terms = with_uncond(terms, frozen)
        scores |= {i: np.asarray(job.read(terms)) for i, job in members.items()}
    return [scores[i] for i in range(len(jobs))]
