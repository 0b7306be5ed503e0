"""Fine-tuning a CLIP on a few items, with the same early stopping and veto as the prompts.

The loss is the cross-entropy over an item's candidates.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from dsd_jax.clip.clip_model import Clip, check_items, check_pixels
from dsd_jax.clip.fine_tuning_step import (
    ItemBatch,
    Program,
    StepInputs,
    batch_indices,
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
from dsd_jax.training.few_shot_fit import FewShotTask, adamw, fit_few_shot
from dsd_jax.training.held_out_verdict import HeldOutVerdict
from dsd_jax.training.loop import LoopOptions
from dsd_jax.training.losses import cross_entropy, fit_temperature

_QUIET = LoopOptions("fine-tuning", progress=False)


class TunedClip(NamedTuple):
    """A fine-tuned CLIP, and how its training went.

    Attributes:
        clip: the given one where the gain on held-out items is not significant.
        checks: {step: mean held-out loss}.
        kept: the step whose params were kept; 0 is the zero-shot model.
        verdict: of the held-out items on the best params; None where they are too few to tell.
    """

    clip: Clip
    checks: dict[int, float]
    kept: int
    verdict: HeldOutVerdict | None = None


class _SplitItems(NamedTuple):
    """Items, the indices of those trained on and of those held out, and all items' clusters."""

    items: ItemBatch
    train: np.ndarray
    held_out: np.ndarray
    clusters: np.ndarray


@dataclass(frozen=True)
class _Scorer:
    """The scores of items on all hosts, in chunks of a batch.

    Attributes:
        clip: whose tokenizer and config they are.
        mesh: of all hosts.
        params: all of the CLIP's, on that mesh.
        chunk: items scored at a time.
    """

    clip: Clip
    mesh: Mesh
    params: Any
    chunk: int

    def program(self, count: int) -> Program:
        """Return the static part of a program for `count` items."""
        clip = self.clip
        return Program(clip.config, clip.dtype, clip.normalize, self.mesh, self.divides(count))

    def divides(self, count: int) -> bool:
        """Return whether each device gets its part of `count` items, and not all of them."""
        return self.mesh.size > 1 and count % self.mesh.size == 0

    def place(self, items: ItemBatch) -> ItemBatch:
        """Put on each device its part of the items, or all of them where they do not divide."""
        count, hosts = len(items.ids), jax.process_count()
        if not self.divides(count):
            return replicate(self.mesh, items)
        local = np.split(np.arange(count), hosts)[jax.process_index()]
        return shard_rows(self.mesh, items.take(local))

    def __call__(self, trained: Any, items: ItemBatch) -> np.ndarray:
        """Return the scores (n, candidates) of n items."""
        scores, count = [], len(items.ids)
        for chunk in padded_chunks(np.arange(count), self.chunk):
            score = scores_function(self.program(len(chunk)))
            with in_mesh(self.mesh):
                batch = self.place(items.take(chunk))
                scores.append(fetch(score(self.params, trained, batch)))
        return np.concatenate(scores)[:count]


def fine_tune(
    clip: Clip,
    pixels: np.ndarray,
    captions: Sequence[Sequence[str]],
    recipe: ClipRecipe,
    seed: int,
    *,
    clusters: Sequence[Hashable] | None = None,
    options: LoopOptions = _QUIET,
) -> TunedClip:
    """Fine-tune a CLIP on n items; several hosts, each of which has all items, do it together.

    Args:
        clip: left as it is.
        pixels: uint8 (n, P, S, S, 3).
        captions: n lists of J strings; P or J is 1, and the matching image or caption is first.
        recipe: how.
        seed: of the split and the order of items.
        clusters: (n,) labels; items of one cluster are not independent. By default all are.
        options: checkpoints, log and progress bar.

    Raises:
        UserError: the items are not of this kind.
    """
    items = _as_batch(clip, pixels, captions)
    ids = cluster_ids(range(len(items.ids)) if clusters is None else list(clusters))
    train, held_out = early_stopping.split(ids, recipe.held_out, seed)
    if not early_stopping.can_tell(ids[held_out]):
        early_stopping.warn_too_few(options.name, len(ids))
        return TunedClip(clip, {}, 0)
    with options.stage("losses of the zero-shot CLIP"):
        task = _task(clip, _SplitItems(items, train, held_out, ids), recipe, seed)
    fit = fit_few_shot(task, recipe, options)
    if not fit.kept:
        return TunedClip(clip, fit.checks, 0, fit.verdict)
    tuned = jax.tree.map(lambda x: x.astype(clip.dtype), on_host(clip.mesh, fit.params))
    tuned_clip = replace(clip, params={**clip.params, **tuned})
    return TunedClip(tuned_clip, fit.checks, fit.kept, fit.verdict)


def _task(clip: Clip, data: _SplitItems, recipe: ClipRecipe, seed: int) -> FewShotTask:
    """Place the params on all hosts and define how they are updated and judged."""
    mesh, batch_size = pod_mesh(clip.mesh), min(recipe.batch, len(data.train))
    # Copies, in float32 whatever the model's dtype: small steps would be rounded away.
    trained = {name: jax.tree.map(_master, clip.params[name]) for name in KINDS[recipe.kind]}
    opt_state = jax.tree.map(partial(_on_mesh, clip.mesh), adamw(recipe).init(trained))
    params, trained, opt_state = on_pod(mesh, (clip.params, trained, opt_state))
    scorer = _Scorer(clip, mesh, params, batch_size)
    zero_shot = scorer(trained, data.items)
    temperature = fit_temperature(zero_shot[:, 1:] - zero_shot[:, :1])
    program = scorer.program(batch_size)
    step = update_function(program, recipe)  # pyright: ignore[reportArgumentType]: it is hashable

    def update(trained: Any, opt_state: Any, batch: ItemBatch) -> tuple[Any, Any, jax.Array]:
        with in_mesh(mesh):
            return step(trained, opt_state, StepInputs(params, batch, temperature))

    def losses(trained: Any) -> np.ndarray:
        scores = scorer(trained, data.items.take(data.held_out))
        return np.asarray(cross_entropy(jnp.asarray(scores / temperature)))

    def batch(number: int) -> ItemBatch:
        return scorer.place(data.items.take(batch_indices(data.train, batch_size, seed, number)))

    return FewShotTask(
        params=trained,
        opt_state=opt_state,
        update=update,
        batch=batch,
        batch_size=batch_size,
        zero_shot_losses=losses(trained),
        held_out_losses=losses,
        clusters=data.clusters[data.held_out],
        what="fine-tuning",
    )


def _as_batch(clip: Clip, pixels: np.ndarray, captions: Sequence[Sequence[str]]) -> ItemBatch:
    pixels = check_pixels(pixels, clip.image_size, 5)
    per_item = check_items(pixels, captions)
    if min(pixels.shape[1], per_item) > 1:
        raise UserError(
            f"items have {pixels.shape[1]} images and {per_item} captions each; a CLIP is "
            "fine-tuned on items with one caption and several images, or the other way round."
        )
    ids = clip.tokenize(check_captions([caption for item in captions for caption in item]))
    return ItemBatch(pixels, ids.reshape(len(pixels), per_item, -1))


def _master(x: jax.Array) -> jax.Array:
    return jnp.array(x, jnp.float32, copy=True)


def _on_mesh(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Replicate an array that is on no mesh yet, such as a count of steps."""
    return x if isinstance(x.sharding, NamedSharding) else replicate(mesh, x)
