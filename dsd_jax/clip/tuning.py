"""Fine-tuning a CLIP on a few items, as few and as carefully as the diffusion model's prompts.

The loss is the cross-entropy of an item's candidates. Of the items a part is held out: it decides
when to stop, and whether what was learned is kept at all, which takes a gain of more than its
standard error.
"""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from dsd_jax.clip.matcher import Clip, check_items, check_pixels
from dsd_jax.clip.tuning_step import (
    Examples,
    Layout,
    Setting,
    drawn,
    optimiser,
    scores_function,
    update_function,
)
from dsd_jax.config.recipes import KINDS, ClipRecipe
from dsd_jax.diffusion.pipeline import padded_chunks
from dsd_jax.diffusion.tokenization import check_captions
from dsd_jax.distributed.sharding import (
    fetch,
    in_mesh,
    on_host,
    on_pod,
    pod_mesh,
    replicate,
    shard_rows,
)
from dsd_jax.errors import UserError
from dsd_jax.statistics.standard_errors import cluster_ids
from dsd_jax.training import early_stopping
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.early_stopping import split
from dsd_jax.training.loop import fit
from dsd_jax.training.losses import cross_entropy, fit_temperature


class Tuned(NamedTuple):
    """A fine-tuned CLIP, and the held-out loss at every check: {step: mean over items}."""

    clip: Clip
    checks: dict[int, float]
    kept: int  # the step whose weights were kept; 0 is the zero-shot model


class Course(NamedTuple):
    """How far fine-tuning has come; all that a resumed run needs. See `held_out`."""

    weights: Any
    optimiser: Any
    best: Any
    best_check: int
    held_out: np.ndarray


def fine_tune(
    clip: Clip,
    pixels: np.ndarray,
    captions: Sequence[Sequence[str]],
    recipe: ClipRecipe,
    seed: int,
    progress: str | None = None,
    *,
    clusters: Sequence[Hashable] | None = None,
    checkpoints: Checkpoints | None = None,
    log: Path | None = None,
) -> Tuned:
    """Fine-tune a CLIP on k items; several hosts, each of which has all items, do it together.

    Args:
        clip: left as it is.
        pixels: uint8 (k, P, S, S, 3).
        captions: k lists of J strings; P or J is 1, and the matching picture or caption is first.
        recipe: how.
        seed: of the split and the order of items.
        progress: what to show before a progress bar; none without it.
        clusters: k of them; items with the same one are not independent. By default all are.
        checkpoints: where to save progress, and resume from.
        log: JSON lines of the training loss.

    Raises:
        UserError: the items are not of this kind.
    """
    shots = _examples(clip, pixels, captions)
    clusters = cluster_ids(range(len(shots.ids)) if clusters is None else clusters)
    learn, held = split(clusters, recipe.held_out, seed)
    if not early_stopping.can_tell(clusters[held]):
        early_stopping.tell_too_few(progress or "fine-tuning", len(clusters))
        return Tuned(clip, {}, 0)
    course = _descend(clip, shots, learn, held, recipe, seed, progress, checkpoints, log)
    checks, kept = early_stopping.verdict(course, recipe, clusters[held])
    if not kept:
        return Tuned(clip, checks, 0)
    best = on_host(clip.mesh, course.best)
    found = jax.tree.map(lambda x: x.astype(clip.dtype), best)
    return Tuned(replace(clip, params={**clip.params, **found}), checks, kept)


def _examples(clip: Clip, pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> Examples:
    pixels = check_pixels(pixels, clip.image_size, 5)
    width = check_items(pixels, captions)
    if min(pixels.shape[1], width) > 1:
        raise UserError(
            f"items have {pixels.shape[1]} pictures and {width} captions each; a CLIP is "
            "fine-tuned on items with one caption and several pictures, or the other way round."
        )
    ids = clip.tokenize(check_captions([caption for row in captions for caption in row]))
    return Examples(pixels, ids.reshape(len(pixels), width, -1))


def _descend(
    clip: Clip,
    shots: Examples,
    learn: np.ndarray,
    held: np.ndarray,
    recipe: ClipRecipe,
    seed: int,
    progress: str | None,
    checkpoints: Checkpoints | None,
    log: Path | None,
) -> Course:
    """Gradient steps on some of the shots, until those held out stop improving."""
    setting, mesh = Setting(clip.config, clip.dtype, clip.normalise), pod_mesh(clip.mesh)
    batch = min(recipe.batch, len(learn))
    step = update_function(Layout(setting, mesh, _divides(mesh, batch)), recipe)
    # Of its own, and in float32 whatever the model's type: small steps would be rounded away.
    weights = {name: jax.tree.map(_master, clip.params[name]) for name in KINDS[recipe.kind]}
    moments = jax.tree.map(partial(_like, clip.mesh), optimiser(recipe).init(weights))
    params, weights, moments = on_pod(mesh, (clip.params, weights, moments))
    scores = partial(_scores, setting, mesh, batch, params)
    zero_shot = scores(weights, shots)
    spread = fit_temperature(zero_shot[:, 1:] - zero_shot[:, :1])

    def update(course: Course, batch: Examples) -> tuple[Course, dict[str, jax.Array]]:
        with in_mesh(mesh):
            weights, moments, loss = step(course.weights, course.optimiser, params, batch, spread)
        return course._replace(weights=weights, optimiser=moments), {"loss": loss}

    def losses(weights: Any) -> np.ndarray:
        return np.asarray(cross_entropy(scores(weights, shots.take(held)) / spread))

    def check(done: int, course: Course) -> tuple[Course, bool, float]:
        return early_stopping.look(course, done, losses(course.weights), course.weights, recipe)

    history = early_stopping.first_losses(losses(weights), recipe.steps, recipe.check_every)
    return fit(
        progress or "fine-tuning",
        Course(weights, moments, jax.tree.map(jnp.copy, weights), np.asarray(0), history),
        update,
        lambda number: _place(mesh, shots.take(drawn(learn, batch, seed, number))),
        recipe.steps,
        checkpoints,
        log,
        check=check,
        check_every=recipe.check_every,
        examples=batch,
        progress=progress is not None,
    )


def _master(x: jax.Array) -> jax.Array:
    return jnp.array(x, jnp.float32, copy=True)


def _like(mesh: Mesh, x: jax.Array) -> jax.Array:
    """What is on no mesh yet, such as a count of steps, on all devices of this one."""
    return x if isinstance(x.sharding, NamedSharding) else replicate(mesh, x)


def _divides(mesh: Mesh, count: int) -> bool:
    """Return whether each device gets its part of so many items, and not all of them."""
    return mesh.size > 1 and count % mesh.size == 0


def _place(mesh: Mesh, items: Examples) -> Examples:
    """Put items on all devices, each of which gets its part, or all where they do not divide."""
    count, hosts = len(items.ids), jax.process_count()
    if not _divides(mesh, count):
        return replicate(mesh, items)
    return shard_rows(mesh, items.take(np.split(np.arange(count), hosts)[jax.process_index()]))


def _scores(
    setting: Setting, mesh: Mesh, batch: int, params: Any, weights: Any, items: Examples
) -> np.ndarray:
    """(n, candidates) of n items, in chunks of a batch, on all hosts."""
    found, count = [], len(items.ids)
    for chunk in padded_chunks(np.arange(count), batch):
        scores = scores_function(Layout(setting, mesh, _divides(mesh, len(chunk))))
        with in_mesh(mesh):
            found.append(fetch(scores(params, weights, _place(mesh, items.take(chunk)))))
    return np.concatenate(found)[:count]
