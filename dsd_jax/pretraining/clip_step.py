"""A small CLIP from scratch: each picture of a batch must find its caption, and the reverse.

Reference: Radford et al. 2021, section 2.3 (the symmetric cross-entropy, the learned temperature
and its bound).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.clip.clip_model import Normalizer
from dsd_jax.data.synthetic.scenes import caption
from dsd_jax.models.clip import CLIP, CLIPConfig, unit
from dsd_jax.pretraining.denoiser_phase import Latents, State
from dsd_jax.training.losses import contrastive

HIGHEST = math.log(100)  # of the logit scale


class Batch(NamedTuple):
    """B pairs: pictures uint8 (B, 64, 64, 3), their captions' ids (B, L)."""

    pictures: np.ndarray
    ids: np.ndarray


def batch(pool: Latents, tokenize: Callable, seed: int, pairs: int, step: int) -> Batch:
    """The batch of a step: pictures from a pool whose "latents" are pixels, fresh captions."""
    pictures, scenes = pool.rows(step, pairs)
    rng = np.random.default_rng([seed, 5, step])
    return Batch(pictures, tokenize([caption(scene, pool.concepts, rng) for scene in scenes]))


def init(config: CLIPConfig, seed: int) -> Any:
    """Random weights."""
    side = config.vision.image_size
    ids, pixels = jnp.zeros((1, config.text.positions), jnp.int32), jnp.zeros((1, side, side, 3))
    return jax.jit(CLIP(config).init)(jax.random.key(seed), ids, pixels)["params"]


def update_function(config: CLIPConfig, transform: optax.GradientTransformation) -> Callable:
    """The jitted (state, batch) -> (state, {"loss", "found", "scale"}); contrasts the whole batch.

    The batch may be split over devices.
    """
    model, normalize = CLIP(config), Normalizer()

    def objective(params: Any, rows: Batch) -> tuple[jax.Array, dict]:
        texts, images = model.apply({"params": params}, rows.ids, normalize(rows.pictures))
        scale = jnp.exp(jnp.minimum(params["logit_scale"], HIGHEST))
        loss, found = contrastive(unit(images), unit(texts), scale)
        return loss, {"loss": loss, "found": found, "scale": scale}

    def update(state: State, rows: Batch) -> tuple[State, dict]:
        grads, metrics = jax.grad(objective, has_aux=True)(state.params, rows)
        updates, opt_state = transform.update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(0.999, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, opt_state, average, state.step + 1), metrics

    return jax.jit(update, donate_argnums=0)
