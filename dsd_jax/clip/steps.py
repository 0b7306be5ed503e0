"""One step of fine-tuning a CLIP: which items, their scores, the loss, the update."""

from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.clip.clip import item_logits
from dsd_jax.clip.pixels import Normaliser
from dsd_jax.clip.recipe import ClipRecipe
from dsd_jax.losses import contrastive, cross_entropy
from dsd_jax.models.clip import CLIP, CLIPConfig, unit


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


@partial(jax.jit, static_argnums=0)
def batch_scores(
    setting: Setting, params: Any, weights: Any, batch: Examples
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Scores (B, candidates); unit vectors (B, E) of the matching pictures, and captions."""
    model, (items, pictures) = CLIP(setting.config, setting.dtype), batch.pixels.shape[:2]
    captions, variables = batch.ids.shape[1], {"params": {**params, **weights}}
    pixels = batch.pixels.reshape(-1, *batch.pixels.shape[2:])
    ids = batch.ids.reshape(-1, batch.ids.shape[-1])
    texts, images = map(unit, model.apply(variables, ids, setting.normalise(pixels)))
    scale = jnp.exp(params["logit_scale"])
    logits = item_logits(images, texts, pictures, captions, scale)
    return logits.reshape(items, -1), images[::pictures], texts[::captions]


def optimiser(recipe: ClipRecipe) -> optax.GradientTransformation:
    """AdamW on a cosine, as the diffusion prompts are learned."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps, alpha=0.1)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay)
    )


@cache
def update_function(setting: Setting, recipe: ClipRecipe) -> Any:
    """The jitted (weights, moments, params, batch, spread) -> (weights, moments, loss)."""
    transform = optimiser(recipe)

    def objective(weights: Any, params: Any, batch: Examples, spread: jax.Array) -> jax.Array:
        scores, images, texts = batch_scores(setting, params, weights, batch)
        loss = cross_entropy(scores / spread).mean()
        if recipe.contrast:
            others, _ = contrastive(images, texts, jnp.exp(params["logit_scale"]))
            loss += recipe.contrast * others
        return loss

    def update(weights: Any, moments: Any, params: Any, batch: Examples, spread: jax.Array):
        loss, grads = jax.value_and_grad(objective)(weights, params, batch, spread)
        updates, moments = transform.update(grads, moments, weights)
        return optax.apply_updates(weights, updates), moments, loss

    return jax.jit(update, donate_argnums=(0, 1))
