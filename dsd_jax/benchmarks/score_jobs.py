"""What is read off every candidate at every timestep, and the passes of the UNet that it takes."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, item_terms
from dsd_jax.config import score_spec
from dsd_jax.config.score_spec import ScoreSpec
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import ProgressFn, even_ranges
from dsd_jax.matching.forward import OutputSpec, Terms, output_floats, with_uncond
from dsd_jax.models.unet_config import UNetConfig

FLOATS = 2**24  # of terms that are in memory at a time, about


class ScoreJob(NamedTuple):
    """A number per candidate and timestep.

    wanted: the terms it takes. read: from them to (I, C, T). timesteps: at which, ascending.
    tree: the prompts under which, None for the frozen model. weights: learned ones of the method.
    """

    wanted: OutputSpec
    read: Callable[[Terms], jax.Array]
    timesteps: np.ndarray
    tree: Mapping[str, Any] | None = None
    weights: Mapping[str, Any] | None = None

    @property
    def is_frozen(self) -> bool:
        """Whether the frozen model's passes serve it; learned weights only read them otherwise."""
        return not set(self.tree or ()) & {"lora", "tokens"}


def score_job(
    unet: UNetConfig,
    reading: ScoreSpec,
    layers: Sequence[str],
    tree: Mapping[str, Any] | None = None,
    stage: int = 0,
) -> ScoreJob:
    """The method's score, which is a mean over timesteps of this."""
    weights = (tree or {}).get("weights", {}).get(reading.method)
    wanted = score_functions.required_outputs(unet, reading.method, layers, weights)
    read = partial(
        score_functions.per_timestep_scores, name=reading.method, layers=layers, weights=weights
    )
    return ScoreJob(wanted, read, reading.new_timesteps(stage), tree, weights)


def compat_score_jobs(
    unet: UNetConfig, reading: ScoreSpec, layers: Sequence[str]
) -> list[ScoreJob]:
    """The parts of what the authors' code scores: attention, which it averages, and bias if any."""
    method, times = score_spec.method_named(reading.method), reading.timesteps()
    wanted = score_functions.required_outputs(unet, reading.method, layers)._replace(uncond=True)
    reads = [partial(score_functions.authors_attention, layers=layers)]
    if method.error:
        reads.append(partial(score_functions.error_term, reading.method))
    return [ScoreJob(wanted, read, times) for read in reads]


def per_timestep_scores(
    model: Model,
    items: EncodedItems,
    tasks: Sequence[ScoreJob],
    seed: int,
    tick: ProgressFn = lambda share: None,
) -> list[np.ndarray]:
    """Each task's (n, P, J, T) float32, with as few passes of the UNet as serve them all.

    All of an item's candidates see one noise per timestep, by seed, item and timestep alone, and
    so do all tasks. Under prompts the empty caption's row is the frozen model's. `tick` gets
    shares of one. Memory for terms does not grow with the number of timesteps.
    """
    shape = (*items.images.shape, items.captions.shape[1])
    found = [np.empty((*shape, len(task.timesteps)), np.float32) for task in tasks]
    groups = _groups(tasks)
    total = sum(len(times) * _rounds([tasks[i] for i in which]) for which, times in groups.items())
    for which, times in groups.items():
        some = [tasks[i] for i in which]
        for piece in even_ranges(len(times), _together(model.unet, some, shape)):
            share = len(piece) * _rounds(some) / total
            values = _read(model, items, some, times[piece], seed, _part_of(tick, share))
            for i, value in zip(which, values, strict=True):
                columns = np.searchsorted(tasks[i].timesteps, times[piece])
                found[i][..., columns] = value.reshape(*shape, -1)
    return found


def _part_of(tick: ProgressFn, share: float) -> ProgressFn:
    """Tells `tick` of shares of a share."""
    return lambda part: tick(part * share)


def _groups(tasks: Sequence[ScoreJob]) -> dict[tuple[int, ...], np.ndarray]:
    """Which tasks read which timesteps: {numbers of tasks: timesteps that just these read}."""
    every = np.unique(np.concatenate([task.timesteps for task in tasks]))
    groups: dict[tuple[int, ...], list[int]] = {}
    for time in every:
        which = tuple(i for i, task in enumerate(tasks) if time in task.timesteps)
        groups.setdefault(which, []).append(int(time))
    return {which: np.array(times, np.int32) for which, times in groups.items()}


def _trees(tasks: Sequence[ScoreJob]) -> list[Mapping[str, Any]]:
    """The different prompts that take passes of their own."""
    return list({id(task.tree): task.tree for task in tasks if not task.is_frozen}.values())


def _rounds(tasks: Sequence[ScoreJob]) -> int:
    """How many times every candidate passes through the UNet."""
    return len(_trees(tasks)) + bool(_frozen_wanted(tasks))


def _frozen_wanted(tasks: Sequence[ScoreJob]) -> list[OutputSpec]:
    """What the frozen model's passes are needed for."""
    return [task.wanted for task in tasks if task.is_frozen or task.wanted.uncond]


def _together(unet: UNetConfig, tasks: Sequence[ScoreJob], shape: tuple[int, int, int]) -> int:
    """How many timesteps' terms of (n, P, J) candidates fit into `FLOATS`, and at least one."""
    items, pictures, captions = shape
    wanted = score_functions.union(unet, [task.wanted for task in tasks])
    return max(1, FLOATS // (items * pictures * max(1, output_floats(unet, wanted, captions))))


def _read(
    model: Model,
    items: EncodedItems,
    tasks: Sequence[ScoreJob],
    times: np.ndarray,
    seed: int,
    tick: ProgressFn,
) -> list[np.ndarray]:
    """(I, C, T) of every task at some timesteps."""
    rounds = _rounds(tasks)

    def terms_under(tree: Mapping[str, Any] | None, wanted: Sequence[OutputSpec]) -> Terms:
        whole = score_functions.union(model.unet, wanted)
        if tree is not None:
            whole = whole._replace(uncond=False)
        return item_terms(model, items, times, (seed,), tree, whole, _part_of(tick, 1 / rounds))

    wanted = _frozen_wanted(tasks)
    frozen = terms_under(None, wanted) if wanted else None
    found: dict[int, np.ndarray] = {}
    for i, task in enumerate(tasks):
        if task.is_frozen:
            found[i] = np.asarray(task.read(frozen))
    for tree in _trees(tasks):
        mine = {i: task for i, task in enumerate(tasks) if task.tree is tree}
        terms = terms_under(tree, [task.wanted for task in mine.values()])
        if frozen is not None:
            terms = with_uncond(terms, frozen)
        found |= {i: np.asarray(task.read(terms)) for i, task in mine.items()}
    return [found[i] for i in range(len(tasks))]
