"""One step of fine-tuning a CLIP: which items, their scores, the loss, the update.

Every device computes the scores, losses and gradient of its own items. All that crosses devices is
one gather of unit vectors, for the loss between items, and then one sum of losses and gradients.
Left to itself XLA makes ten such operations of a step, several of which can be under way at once;
each holds one of the threads that carry simulated devices, which are as many as there are cores.
"""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from dsd_jax.clip.matcher import item_logits
from dsd_jax.clip.normalisation import Normaliser
from dsd_jax.config.recipes import ClipRecipe
from dsd_jax.distributed.sharding import WHOLE
from dsd_jax.models.clip import CLIP, CLIPConfig, unit
from dsd_jax.training.losses import contrastive, cross_entropy

_ROWS = PartitionSpec("data")


class Examples(NamedTuple):
    """Items, what matches first: pixels (n, P, S, S, 3) uint8, captions' ids (n, J, L) int32."""

    pixels: np.ndarray
    ids: np.ndarray

    def take(self, rows: np.ndarray) -> "Examples":
        """Some of the items."""
        return Examples(self.pixels[rows], self.ids[rows])


class Setting(NamedTuple):
    """What the scores' program depends on; recipes share it."""

    config: CLIPConfig
    dtype: Any
    normalise: Normaliser


def drawn(rows: np.ndarray, batch: int, seed: int, step: int) -> np.ndarray:
    """The items of a step: each of `rows` once, in random order, before any comes again."""
    numbers = np.arange(step * batch, (step + 1) * batch)
    passes = {
        number: np.random.default_rng([seed, 10, number]).permutation(rows)
        for number in range(numbers[0] // len(rows), numbers[-1] // len(rows) + 1)
    }
    return np.array([passes[n // len(rows)][n % len(rows)] for n in numbers])


class Layout(NamedTuple):
    """A place for programs; with `divided` each device has its part of the items, else all."""

    setting: Setting
    mesh: Mesh
    divided: bool

    @property
    def parts(self) -> int:
        """Return how many parts go along `data`; XLA rejects sums over an axis of one device."""
        return self.mesh.shape["data"] if self.divided else 1


def embed(
    setting: Setting, params: Any, weights: Any, batch: Examples
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scores (B, candidates) and unit vectors (B, E): matching pictures, captions."""
    model, (items, pictures) = CLIP(setting.config, setting.dtype), batch.pixels.shape[:2]
    captions, variables = batch.ids.shape[1], {"params": {**params, **weights}}
    pixels = batch.pixels.reshape(-1, *batch.pixels.shape[2:])
    ids = batch.ids.reshape(-1, batch.ids.shape[-1])
    texts, images = map(unit, model.apply(variables, ids, setting.normalise(pixels)))
    scale = jnp.exp(params["logit_scale"])
    logits = item_logits(images, texts, pictures, captions, scale)
    return logits.reshape(items, -1), images[::pictures], texts[::captions]


@cache
def scores_function(layout: Layout) -> Any:
    """Return the jitted (params, weights, batch) -> scores (B, candidates).

    They are divided as the batch is.
    """

    def scores(params: Any, weights: Any, batch: Examples) -> jax.Array:
        return embed(layout.setting, params, weights, batch)[0]

    return jax.jit(_by_device(layout, scores, (WHOLE, WHOLE, _ROWS), _ROWS))


def optimiser(recipe: ClipRecipe) -> optax.GradientTransformation:
    """AdamW on a cosine, as the diffusion prompts are learned."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps, alpha=0.1)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay)
    )


@cache
def update_function(layout: Layout, recipe: ClipRecipe) -> Any:
    """The jitted (weights, moments, params, batch, spread) -> (weights, moments, loss)."""
    transform = optimiser(recipe)

    def mine(weights: Any, params: Any, batch: Examples, spread: jax.Array):
        objective = partial(_objective, layout, recipe.contrast)
        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(
            weights, params, batch, spread
        )
        return jax.lax.psum((loss, grads), "data") if layout.parts > 1 else (loss, grads)

    gradient = _by_device(layout, mine, (WHOLE, WHOLE, _ROWS, WHOLE), WHOLE)

    def update(weights: Any, moments: Any, params: Any, batch: Examples, spread: jax.Array):
        loss, grads = gradient(weights, params, batch, spread)
        updates, moments = transform.update(grads, moments, weights)
        return optax.apply_updates(weights, updates), moments, loss

    return jax.jit(update, donate_argnums=(0, 1))


def _objective(
    layout: Layout, contrast: float, weights: Any, params: Any, batch: Examples, spread: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return a value with this device's part of the loss's gradient, and its part of the loss."""
    scores, images, texts = embed(layout.setting, params, weights, batch)
    own = cross_entropy(scores / spread).mean() / layout.parts
    if not contrast:
        return own, own
    if layout.parts > 1:
        images, texts = _with_others(images, texts)
    others, _ = contrastive(images, texts, jnp.exp(params["logit_scale"]))
    # Every device has the whole of it, but its gradient for its own vectors alone.
    return own + contrast * others, own + contrast * others / layout.parts


def _with_others(images: jax.Array, texts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Put a device's unit vectors (b, E) among those of all B items, which are constants."""
    own = jnp.stack([images, texts], axis=1)
    every = jax.lax.all_gather(jax.lax.stop_gradient(own), "data", tiled=True)
    start = len(own) * jax.lax.axis_index("data")
    every = jax.lax.dynamic_update_slice_in_dim(every, own, start, axis=0)
    return every[:, 0], every[:, 1]


def _by_device(layout: Layout, function: Any, inputs: tuple, outputs: PartitionSpec) -> Any:
    """Make a function of a batch one of its parts on the devices, manual over `data`.

    As in `dsd_jax.few_shot.train_step` XLA divides what is left over `fsdp` as the weights lie.
    """
    if layout.parts == 1:
        return function
    return jax.shard_map(
        function,
        mesh=layout.mesh,
        axis_names={"data"},
        in_specs=inputs,
        out_specs=outputs,
        check_vma=False,
    )
