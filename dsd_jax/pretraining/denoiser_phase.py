"""Phase 3 trains text encoder and UNet together, by denoising latents of the finished VAE."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from dsd_jax.config.pretrain_config import PretrainConfig
from dsd_jax.data.synthetic.scenes import caption
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.distributed.sharding import host_mesh
from dsd_jax.models.text_encoder import CLIPTextEncoder, TextConfig
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig
from dsd_jax.pretraining.caption_reading_phase import reading_loss, side_labels
from dsd_jax.pretraining.network_configs import (
    bundled_tokenizer,
    schedule,
    text_config,
    unet_config,
    vae_config,
)
from dsd_jax.pretraining.scene_batches import ScenePool, to_pixels, training_stream
from dsd_jax.pretraining.train_phase import (
    GradientFn,
    Stage,
    adamw_with_cooldown,
    apply,
    create_state,
    make_update,
    run_phase,
)
from dsd_jax.training.checkpoint_digests import digest

DRAWS = 2  # timesteps and noises per image in a batch: its caption is encoded once for all
MIDDLE = (300, 1000)  # timesteps at which objects and their places are decided
MIDDLE_SHARE = 0.75
READING = 0.1  # weight of phase 2's task, so that the encoder does not forget it
EMPTY_SHARE = 0.1  # captions replaced by "", so that the model knows the unconditional case


class Batch(NamedTuple):
    """A batch of I images.

    Attributes:
        latents: (I, h, w, D).
        ids: of the captions, (I, 77).
        sides: what each caption says of each side (I, 4, 2), see `side_labels`.
        timesteps: (I, DRAWS).
    """

    latents: np.ndarray
    ids: np.ndarray
    sides: np.ndarray
    timesteps: np.ndarray


def encoder(config: VAEConfig, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """Build a function from uint8 images to scaled latents, from the posterior's mean."""
    model = AutoencoderKL(config)
    run = jax.jit(lambda p, x: apply(model, p, x, method="encode")[0])
    return lambda images: np.asarray(run(params, to_pixels(images))) * config.scaling_factor


def batch(
    pool: ScenePool, tokenize: Callable[[list[str]], np.ndarray], count: int, step: int
) -> Batch:
    """Return the batch of a step: `count` images, fresh captions, mostly middle timesteps."""
    latents, scenes = pool.batch(step, count)
    rng = np.random.default_rng([pool.seed, 5, step])
    captions = [caption(scene, pool.concepts, rng) for scene in scenes]
    empty = rng.random(count) < EMPTY_SHARE
    captions = ["" if drop else text for text, drop in zip(captions, empty, strict=True)]
    labels = side_labels(scenes, captions, pool.concepts)
    shape = (count, DRAWS)
    middle = rng.random(shape) < MIDDLE_SHARE
    timesteps = np.where(middle, rng.integers(*MIDDLE, shape), rng.integers(0, 1000, shape))
    return Batch(latents, tokenize(captions), labels, timesteps.astype(np.int32))


def init_unet(config: UNetConfig, key: jax.Array) -> Any:
    """Return random params; residual branches start at zero, so that each block is the identity."""
    size = config.sample_size
    params = jax.jit(UNet2DCondition(config).init)(
        key,
        jnp.zeros((1, size, size, config.in_channels)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, 1, config.cross_attention_dim)),
    )["params"]
    return jax.tree_util.tree_map_with_path(_zero_residual, params)


def _zero_residual(path: tuple, leaf: jax.Array) -> jax.Array:
    module = path[-2].key
    return jnp.zeros_like(leaf) if module in ("conv2", "proj_out", "conv_out") else leaf


def loss_function(
    unet: UNetConfig, text: TextConfig, schedule: Schedule
) -> Callable[[Any, Batch, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]:
    """Build the loss (params, batch, key) -> (value, {"denoising", "reading"}).

    It is the mean squared error of the predicted noise (or v), plus a little of phase 2's task.
    """
    denoiser, text_encoder = UNet2DCondition(unet), CLIPTextEncoder(text)

    def loss(params: Any, batch: Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        timesteps = jnp.asarray(batch.timesteps).reshape(-1)
        latents = jnp.repeat(batch.latents, DRAWS, axis=0)
        noise = jax.random.normal(key, latents.shape)
        states = apply(text_encoder, params["text"], batch.ids)
        noisy = schedule.add_noise(latents, noise, timesteps)
        prediction, _ = apply(denoiser, params["unet"], noisy, timesteps, states[:, None])
        error = jnp.mean(jnp.square(prediction - schedule.target(latents, noise, timesteps)))
        reading, _ = reading_loss(params["reader"], states, jnp.asarray(batch.sides))
        return error + READING * reading, {"denoising": error, "reading": reading}

    return loss


def sharded_gradients(loss: Callable, mesh: Mesh, seed: int) -> GradientFn:
    """Build the gradients of `loss`, of which each device computes its share of the images."""
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def gradients(params: Any, batch: Batch, step: jax.Array):
        key = jax.random.fold_in(jax.random.key(seed), step)
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        grads, metrics = jax.grad(loss, has_aux=True)(params, batch, key)
        return jax.lax.pmean((grads, metrics), "data")

    return jax.shard_map(
        gradients, mesh=mesh, in_specs=(whole, rows, whole), out_specs=whole, check_vma=False
    )


def train_denoiser(
    config: PretrainConfig, workdir: Path, *, vae_params: Any, text_params: Any, start: Any
) -> Any:
    """Train text encoder and UNet.

    Args:
        config: of the run.
        workdir: holds checkpoints and log.
        vae_params: of the finished VAE.
        text_params: {"text", "reader"}, from phase 2.
        start: params of a model whose UNet is trained further, or None.

    Returns:
        The averaged params {"text", "unet"}.
    """
    settings, tokenizer = config.denoiser, bundled_tokenizer()
    text, unet = text_config(config, len(tokenizer)), unet_config(config)
    optimizer = adamw_with_cooldown(settings.learning_rate, settings.steps, settings.cooldown)
    unet_params = start["unet"] if start else init_unet(unet, jax.random.key(config.seed))
    loss = loss_function(unet, text, schedule(config))
    pool = ScenePool(
        training_stream(),
        encoder(vae_config(config), vae_params),
        seed=config.seed,
        size=settings.pool,
        passes=settings.passes,
    )
    stage = Stage(
        name="denoiser",
        steps=settings.steps,
        update=make_update(sharded_gradients(loss, host_mesh(), config.seed), optimizer),
        batch=lambda step: batch(
            pool, lambda captions: tokenize(tokenizer, captions), settings.batch, step
        ),
    )
    state = run_phase(
        workdir / "denoiser",
        create_state({**text_params, "unet": unet_params}, optimizer),
        [stage],
        identity={
            # A longer or shorter run is the same run.
            "denoiser": settings.model_dump(exclude={"steps", "cooldown"}),
            "unet": config.unet.model_dump(),
            "text": config.text.model_dump(),
            "start": config.start,
            "vae_weights": digest(vae_params),
        },
        config=config,
    )
    return {part: state.average[part] for part in ("text", "unet")}
