"""Phase 1 trains the VAE by reconstruction with a little KL, then whitens its latents.

A convolutional decoder at image size takes four fifths of the time and learns slowly, so the
encoder would wait for it. A second, linear decoder of 8x8 patches, initialized with their principal
components, tells the encoder from the first step what a patch must keep; it is dropped afterwards.
The first part of the phase trains the encoder against it alone.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.config.pretrain_config import PretrainConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig
from dsd_jax.pretraining.network_configs import vae_config
from dsd_jax.pretraining.scene_batches import SceneStream, to_pixels, training_stream
from dsd_jax.pretraining.train_phase import (
    GradientFn,
    Stage,
    adam_with_cosine,
    apply,
    create_state,
    make_update,
    run_phase,
)

KL_WEIGHT = 1e-5
_EMA_DECAY = 0.998


def batch(stream: SceneStream, seed: int, count: int, step: int) -> np.ndarray:
    """Return images (count, 64, 64, 3) in [-1, 1], half of them in other colors than drawn.

    Shuffled and inverted color channels are cheap new artists: without them the VAE learns the
    palettes it sees and blurs the unseen one.
    """
    images, _ = stream.batch([seed, 1, step], count)
    rng = np.random.default_rng([seed, 2, step])
    for i in np.flatnonzero(rng.random(count) < 0.5):
        images[i] = images[i][..., rng.permutation(3)]
        inverted = rng.random(3) < 0.3
        images[i][..., inverted] = 255 - images[i][..., inverted]
    return to_pixels(images)


def init_autoencoder(config: VAEConfig, seed: int, pixels: np.ndarray) -> dict[str, Any]:
    """Return random VAE params, and a linear decoder of the principal patches of `pixels`."""
    vae = jax.jit(AutoencoderKL(config).init)(jax.random.key(seed), pixels[:1])["params"]
    return {"vae": vae, "patches": principal_patches(pixels, config)}


def to_patches(pixels: jax.Array | np.ndarray, side: int) -> jax.Array | np.ndarray:
    """Reshape (I, h*f, w*f, 3) to (I, h, w, f*f*3), f being the side of a patch."""
    count, height, width, _ = pixels.shape
    grid = pixels.reshape(count, height // side, side, width // side, side, 3)
    return grid.swapaxes(2, 3).reshape(count, height // side, width // side, -1)


def principal_patches(pixels: np.ndarray, config: VAEConfig) -> dict[str, np.ndarray]:
    """Return a linear decoder from unit-variance principal components to image patches."""
    patches = np.asarray(to_patches(pixels, config.downscale))
    patches = patches.reshape(-1, patches.shape[-1])
    center = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - center, rowvar=False))
    top = np.argsort(values)[::-1][: config.latent_channels]
    kernel = (vectors[:, top] * np.sqrt(values[top])).T
    return {"kernel": kernel.astype(np.float32), "bias": center.astype(np.float32)}


def losses(
    params: Any, config: VAEConfig, pixels: jax.Array, key: jax.Array, *, decoder: bool
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of a batch and its PSNRs in dB, without or with the VAE's own decoder."""
    model = AutoencoderKL(config)
    mean, logvar = apply(model, params["vae"], pixels, method="encode")
    latents = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
    linear = latents @ params["patches"]["kernel"] + params["patches"]["bias"]
    linear = jnp.mean(jnp.square(linear - to_patches(pixels, config.downscale)))
    kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
    total, metrics = linear + KL_WEIGHT * kl, {"linear_psnr": 10 * jnp.log10(4 / linear)}
    if decoder:
        error = apply(model, params["vae"], latents, method="decode") - pixels
        squared = jnp.mean(jnp.square(error))
        total += squared + 0.1 * jnp.mean(jnp.abs(error))
        metrics["psnr"] = 10 * jnp.log10(4 / squared)
    return total, metrics


def autoencoder_gradients(config: VAEConfig, *, decoder: bool) -> GradientFn:
    """Build the gradients of `losses`; the posterior's noise is keyed by the step."""

    def loss(params: Any, pixels: jax.Array, step: jax.Array) -> tuple[jax.Array, dict]:
        key = jax.random.fold_in(jax.random.key(0), step)
        value, metrics = losses(params, config, pixels, key, decoder=decoder)
        return value, {"loss": value, **metrics}

    return jax.grad(loss, has_aux=True)


def whiten(params: Any, config: VAEConfig, pixels: np.ndarray) -> Any:
    """Fold a per-channel standardization of the latents into the two 1x1 convolutions.

    Encode-then-decode stays the same function; the posterior's mean gets mean 0 and variance 1 per
    channel over `pixels`, which is what a diffusion schedule expects.
    """
    model = AutoencoderKL(config)
    encode = jax.jit(lambda p, x: apply(model, p, x, method="encode")[0])
    means = np.concatenate([encode(params, chunk) for chunk in np.split(pixels, len(pixels) // 64)])
    center, scale = means.mean((0, 1, 2)), means.std((0, 1, 2))
    ones = np.ones_like(scale)
    quant, post = params["quant_conv"], params["post_quant_conv"]
    shift = np.concatenate([-center / scale, -2 * np.log(scale)])
    factor = np.concatenate([1 / scale, ones])
    quant = {"kernel": quant["kernel"] * factor, "bias": quant["bias"] * factor + shift}
    kernel = post["kernel"]  # (1, 1, in, out)
    bias = post["bias"] + np.einsum("i,io->o", center, np.asarray(kernel[0, 0]))
    post = {"kernel": kernel * scale[:, None], "bias": bias}
    return {**params, "quant_conv": quant, "post_quant_conv": post}


def psnr(params: Any, config: VAEConfig, pixels: np.ndarray) -> float:
    """Return the quality of reconstruction from the posterior's mean in dB."""
    run = jax.jit(lambda p, x: jnp.clip(apply(AutoencoderKL(config), p, x), -1, 1))
    errors = [
        np.mean(np.square(run(params, chunk) - chunk))
        for chunk in np.split(pixels, len(pixels) // 64)
    ]
    return float(10 * np.log10(4 / np.mean(errors)))


def train_vae(config: PretrainConfig, workdir: Path) -> Any:
    """Train the VAE; return its averaged, whitened params."""
    vae, settings, stream = vae_config(config), config.vae, training_stream()
    sample = to_pixels(stream.batch([config.seed, 0], 2048)[0])
    optimizer = adam_with_cosine(settings.learning_rate, settings.steps, settings.steps // 14)

    def stage(name: str, steps: int, count: int, decoder: bool) -> Stage:
        gradients = autoencoder_gradients(vae, decoder=decoder)
        update = make_update(gradients, optimizer, ema_decay=_EMA_DECAY)
        return Stage(name, steps, update, lambda step: batch(stream, config.seed, count, step))

    state = run_phase(
        workdir / "vae",
        create_state(init_autoencoder(vae, config.seed, sample), optimizer),
        [
            stage("encoder", settings.encoder_steps, 2 * settings.batch, False),
            stage("vae", settings.steps, settings.batch, True),
        ],
        identity=settings.model_dump(),
        config=config,
    )
    params = whiten(state.average["vae"], vae, sample)
    print(f"vae: {psnr(params, vae, sample[:512]):.1f} dB on seen artists")
    return params
