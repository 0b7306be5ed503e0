"""Learning prompts from a few items: gradient steps, early stopping, a prior at zero-shot.

Of the few shots a part is held out: it decides when to stop, and whether what was learned is kept
at all, which takes a gain of more than its standard error. Both candidates of an item share
timestep and noise; training sees the timesteps that are scored later, under several noises. The
empty caption's row is the frozen model's, computed once.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.diffusion.device_memory import GIB, Device, bytes_per_device, explain_out_of_memory
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import fetch, on_pod, pod_mesh, replicate
from dsd_jax.few_shot.batches import Batch, training_batch
from dsd_jax.few_shot.held_out_losses import HeldOut
from dsd_jax.few_shot.score_weights import fit_weights
from dsd_jax.few_shot.support_set import Recipe, Shots, spread
from dsd_jax.few_shot.train_step import State, Step, optimiser, parts_that_fit, update_function
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import ForwardConfig, OutputSpec
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts import prompt_params
from dsd_jax.training import early_stopping
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.early_stopping import split
from dsd_jax.training.loop import fit


class Learned(NamedTuple):
    """Learned prompts, and the held-out loss at every check: {step: mean over held-out items}."""

    prompts: dict[str, Any]
    checks: dict[int, float]
    kept: int  # the step whose prompts were kept; 0 is the zero-shot model


def wanted_by(unet: UNetConfig, recipe: Recipe, tree: Mapping[str, Any]) -> OutputSpec:
    """The terms that the recipe's losses read, the empty caption's aside."""
    wanted = score_functions.union(
        unet,
        [
            score_functions.required_outputs(
                unet, name, recipe.layers, tree.get("weights", {}).get(name)
            )
            for name in recipe.methods
        ],
    )
    return wanted._replace(error=wanted.error or bool(recipe.denoise), uncond=False)


def init(unet: UNetConfig, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Prompts of the recipe's kinds that are learned by gradient, before the first step."""
    key = jax.random.key(seed)
    tree: dict[str, Any] = {}
    if "lora" in recipe.kinds:
        tree["lora"] = prompt_params.init_lora(unet, jax.random.fold_in(key, 0), recipe.rank)
    if "tokens" in recipe.kinds:
        tree["tokens"] = prompt_params.init_tokens(unet, jax.random.fold_in(key, 1), recipe.tokens)
    return tree


class Course(NamedTuple):
    """How far learning has come; all that a resumed run needs. See `held_out`."""

    state: State
    best: Any
    best_check: int
    held_out: np.ndarray


def learn(
    model: Model,
    shots: Shots,
    recipe: Recipe,
    seed: int,
    *,
    checkpoints: Checkpoints | None = None,
    log: Path | None = None,
    progress: str | None = None,
) -> Learned:
    """Learn prompts from a few shots.

    Args:
        model: frozen.
        shots: what `look_at` made of k items; several recipes can share it.
        recipe: how.
        seed: of the initialisation, the split and training's noise.
        checkpoints: where to save progress, and resume from.
        log: JSON lines of the training loss.
        progress: what to show before a progress bar; none without it.
    """
    clusters = shots.items.clusters
    part = split(clusters, recipe.held_out, seed)
    judged = clusters[part[1]]
    by_folds = set(recipe.kinds) == {"weights"}  # without held-out items
    if not early_stopping.can_tell(clusters if by_folds else judged):
        early_stopping.tell_too_few(progress or "learning", shots.items.count)
        return Learned({}, {}, 0)
    fixed: dict[str, Any] = {}
    if "weights" in recipe.kinds:
        weights = {name: fit_weights(shots, recipe, name, seed) for name in recipe.methods}
        fixed = {"weights": weights}
    tree = init(model.unet, recipe, seed)
    if not tree:
        return Learned(fixed, {}, 0)
    course = _descend(model, recipe, shots, part, tree, fixed, seed, checkpoints, log, progress)
    checks, kept = early_stopping.verdict(course, recipe, judged)
    found = jax.tree.map(fetch, course.best) if kept else {}
    return Learned({**found, **fixed}, checks, kept)


def _descend(
    model: Model,
    recipe: Recipe,
    shots: Shots,
    part: tuple[np.ndarray, np.ndarray],
    tree: Any,
    fixed: Any,
    seed: int,
    checkpoints: Checkpoints | None,
    log: Path | None,
    progress: str | None,
) -> Course:
    """Gradient steps on the first part of the shots, until the second part stops improving."""
    mesh = pod_mesh(model.mesh)
    setting = Step(
        ForwardConfig.of(model, wanted_by(model.unet, recipe, fixed), recipe.remat), recipe, mesh
    )
    params = on_pod(mesh, model.params["unet"])
    spreads = {name: spread(shots, name, recipe) for name in recipe.methods}
    held = HeldOut(shots, part[1], recipe, fixed, spreads)
    tree, fixed = replicate(mesh, (tree, fixed))

    def batch(number: int, settings: Recipe = recipe) -> Batch:
        return training_batch(mesh, shots, part[0], settings, seed, number)

    if (device := Device.local()).memory is not None:
        inputs = tree, fixed, params, batch(0), spreads
        setting = in_parts(setting, inputs, device, bytes_per_device(model.params), progress)
    update = update_function(setting)

    def step(course: Course, batch: Batch) -> tuple[Course, dict[str, jax.Array]]:
        with explain_out_of_memory("a training step", "raise accumulate, or set remat to 'blocks'"):
            state, loss = update(course.state, fixed, params, batch, spreads)
        return course._replace(state=state), {"loss": loss}

    def check(done: int, course: Course) -> tuple[Course, bool, float]:
        now = course.state.prompts
        return early_stopping.look(
            course, done, held.under(model, setting.net.wanted, now), now, recipe
        )

    history = early_stopping.first_losses(held.zero_shot(), recipe.steps, recipe.check_every)
    state = State(tree, replicate(mesh, optimiser(recipe).init(tree)))
    return fit(
        progress or "learning",
        Course(state, jax.tree.map(jnp.copy, tree), np.asarray(0), history),
        step,
        lambda number: batch(number, setting.recipe),
        recipe.steps,
        checkpoints,
        log,
        check=check,
        check_every=recipe.check_every,
        examples=recipe.batch,
        progress=progress is not None,
    )


def in_parts(setting: Step, inputs: tuple, device: Device, weights: int, name: str | None) -> Step:
    """Return the step in as many parts as a device's memory takes, at least the recipe's.

    Args:
        setting: as the recipe has it.
        inputs: of `steps.gradient` beside it, with a batch of a training step.
        device: that computes them.
        weights: bytes of all frozen weights on it.
        name: of what is learned, for a sentence on stderr where there are more parts.
    """
    asked = setting.recipe.accumulate
    parts = processes.max_over_processes(parts_that_fit(setting, inputs, device, weights))
    if parts == asked:
        return setting
    if processes.is_main() and name:
        print(
            f"{name}: batches are computed in {parts} parts instead of {asked}, for "
            f"{device.memory / GIB:.1f} GiB of a device's memory; the numbers stay.",
            file=sys.stderr,
        )
    return setting._replace(recipe=setting.recipe.model_copy(update={"accumulate": parts}))
