"""The one phase of a CLIP: each image of a batch must find its caption, and the reverse.

Reference: Radford et al. 2021, section 2.3 (the symmetric cross-entropy, the learned temperature
and its bound).
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.clip.clip_model import Normalizer, without_padding
from dsd_jax.config.pretrain_config import ClipPretrainConfig
from dsd_jax.data.synthetic.scenes import caption
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.models.clip import CLIP, CLIPConfig, unit
from dsd_jax.pretraining.network_configs import bundled_tokenizer, clip_config
from dsd_jax.pretraining.scene_batches import ScenePool, training_stream
from dsd_jax.pretraining.train_phase import (
    GradientFn,
    Stage,
    adamw_with_cooldown,
    apply,
    create_state,
    make_update,
    run_phase,
)
from dsd_jax.training.losses import contrastive

_MAX_LOGIT_SCALE = math.log(100)


class Batch(NamedTuple):
    """A batch of B pairs: images uint8 (B, 64, 64, 3), their captions' ids (B, L)."""

    images: np.ndarray
    ids: np.ndarray


def batch(
    pool: ScenePool, tokenize: Callable[[list[str]], np.ndarray], count: int, step: int
) -> Batch:
    """Return the batch of a step: `count` images of a pool, with fresh captions."""
    images, scenes = pool.batch(step, count)
    rng = np.random.default_rng([pool.seed, 5, step])
    return Batch(images, tokenize([caption(scene, pool.concepts, rng) for scene in scenes]))


def init_clip(config: CLIPConfig, seed: int) -> Any:
    """Return random params."""
    side = config.vision.image_size
    ids, pixels = jnp.zeros((1, config.text.positions), jnp.int32), jnp.zeros((1, side, side, 3))
    return jax.jit(CLIP(config).init)(jax.random.key(seed), ids, pixels)["params"]


def clip_gradients(config: CLIPConfig) -> GradientFn:
    """Build the gradients of the contrast of a whole batch, which may be split over devices.

    The logged scalars are "loss", "found" (the part of images and captions that are closest to
    their own) and "scale" (of the cosines).
    """
    model, normalize = CLIP(config), Normalizer()

    def loss(params: Any, batch: Batch, step: jax.Array) -> tuple[jax.Array, dict]:
        del step
        pixels = normalize(jnp.asarray(batch.images))
        texts, images = apply(model, params, batch.ids, pixels)
        scale = jnp.exp(jnp.minimum(params["logit_scale"], _MAX_LOGIT_SCALE))
        value, found = contrastive(unit(images), unit(texts), scale)
        return value, {"loss": value, "found": found, "scale": scale}

    return jax.grad(loss, has_aux=True)


def train_clip(config: ClipPretrainConfig, workdir: Path) -> Any:
    """Train a CLIP on the scenes of the bundled Stable Diffusion; return averaged params."""
    settings, tokenizer = config.contrast, bundled_tokenizer()
    network = clip_config(config, tokenizer)
    optimizer = adamw_with_cooldown(settings.learning_rate, settings.steps, settings.cooldown)
    pool = ScenePool(
        training_stream(), seed=config.seed, size=settings.pool, passes=settings.passes
    )

    def ids(captions: list[str]) -> np.ndarray:
        return without_padding(tokenize(tokenizer, captions), network.text)

    stage = Stage(
        name="clip",
        steps=settings.steps,
        update=make_update(clip_gradients(network), optimizer),
        batch=lambda step: batch(pool, ids, settings.batch, step),
    )
    identity = config.model_dump(include={"text", "vision", "contrast", "projection"})
    for changeable in ("steps", "cooldown"):  # a longer or shorter run is the same run
        del identity["contrast"][changeable]
    state = run_phase(
        workdir / "clip",
        create_state(init_clip(network, config.seed), optimizer),
        [stage],
        identity=identity,
        config=config,
    )
    return state.average
