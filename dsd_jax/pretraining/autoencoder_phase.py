"""Phase 1: the VAE, by reconstruction with a touch of KL, then whitened latents.

A convolutional decoder at picture size takes four fifths of the time and learns slowly, so that
the encoder would wait for it. A second, linear decoder of 8x8 patches, initialised with their
principal components, tells the encoder from the first step what a patch must keep; it is dropped
afterwards. The first part of the phase trains the encoder against it alone.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.models.vae import AutoencoderKL, VAEConfig
from dsd_jax.pretraining.scene_batches import Stream, to_pixels

KL_WEIGHT = 1e-5


class State(NamedTuple):
    """What VAE training carries from step to step."""

    params: Any
    optimiser: Any
    average: Any
    step: jax.Array


def batch(stream: Stream, seed: int, rows: int, step: int) -> np.ndarray:
    """Pictures (rows, 64, 64, 3) in [-1, 1]; half of them in other colours than their artist's.

    Shuffled and inverted colour channels are cheap new artists: without them the VAE learns the
    palettes it sees and blurs the unseen one.
    """
    images, _ = stream.batch([seed, 1, step], rows)
    rng = np.random.default_rng([seed, 2, step])
    for i in np.flatnonzero(rng.random(rows) < 0.5):
        images[i] = images[i][..., rng.permutation(3)]
        flipped = rng.random(3) < 0.3
        images[i][..., flipped] = 255 - images[i][..., flipped]
    return to_pixels(images)


def optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a short warm-up and a cosine to nothing."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 14, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def init(
    config: VAEConfig, transform: optax.GradientTransformation, seed: int, pixels: np.ndarray
) -> State:
    """Random weights for the VAE, and the principal patches of `pixels` for the linear decoder."""
    params = {
        "vae": jax.jit(AutoencoderKL(config).init)(jax.random.key(seed), pixels[:1])["params"],
        "patches": principal_patches(pixels, config),
    }
    average = jax.tree.map(jnp.copy, params)  # `update` donates its state: no buffer twice
    return State(params, transform.init(params), average, jnp.zeros((), jnp.int32))


def to_patches(pixels: jax.Array, side: int) -> jax.Array:
    """(B, H*f, W*f, 3) -> (B, H, W, f*f*3)."""
    b, h, w, _ = pixels.shape
    grid = pixels.reshape(b, h // side, side, w // side, side, 3)
    return grid.swapaxes(2, 3).reshape(b, h // side, w // side, -1)


def principal_patches(pixels: np.ndarray, config: VAEConfig) -> dict[str, np.ndarray]:
    """A linear decoder from unit-variance principal components to patches of the picture."""
    patches = np.asarray(to_patches(pixels, config.downscale))
    patches = patches.reshape(-1, patches.shape[-1])
    centre = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - centre, rowvar=False))
    top = np.argsort(values)[::-1][: config.latent_channels]
    kernel = (vectors[:, top] * np.sqrt(values[top])).T
    return {"kernel": kernel.astype(np.float32), "bias": centre.astype(np.float32)}


def losses(params: Any, config: VAEConfig, pixels: jax.Array, key: jax.Array, decoder: bool):
    """(the loss to minimise, {"psnr", "linear_psnr"}) of one batch."""
    model = AutoencoderKL(config)
    mean, logvar = model.apply({"params": params["vae"]}, pixels, method="encode")
    latents = mean + jnp.exp(logvar / 2) * jax.random.normal(key, mean.shape)
    linear = latents @ params["patches"]["kernel"] + params["patches"]["bias"]
    linear = jnp.mean(jnp.square(linear - to_patches(pixels, config.downscale)))
    kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(logvar) - 1 - logvar)
    total, metrics = linear + KL_WEIGHT * kl, {"linear_psnr": 10 * jnp.log10(4 / linear)}
    if decoder:
        error = model.apply({"params": params["vae"]}, latents, method="decode") - pixels
        squared = jnp.mean(jnp.square(error))
        total += squared + 0.1 * jnp.mean(jnp.abs(error))
        metrics["psnr"] = 10 * jnp.log10(4 / squared)
    return total, metrics


def update_function(config: VAEConfig, transform: optax.GradientTransformation, *, decoder: bool):
    """The jitted (state, pixels) -> (state, metrics), with or without the convolutional decoder."""

    def update(state: State, pixels: jax.Array):
        key = jax.random.fold_in(jax.random.key(0), state.step)
        grad = jax.value_and_grad(losses, has_aux=True)
        (value, metrics), grads = grad(state.params, config, pixels, key, decoder)
        updates, opt_state = transform.update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(0.998, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, opt_state, average, state.step + 1), {"loss": value, **metrics}

    return jax.jit(update, donate_argnums=0)


def whiten(params: Any, config: VAEConfig, pixels: np.ndarray) -> Any:
    """Fold a per-channel standardisation of the latents into the two 1x1 quantisation layers.

    The function computed by encode-then-decode stays the same; the posterior's mean gets mean 0
    and variance 1 per channel over `pixels`, which is what a diffusion schedule expects.
    """
    model = AutoencoderKL(config)
    encode = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode")[0])
    means = np.concatenate([encode(params, chunk) for chunk in np.split(pixels, len(pixels) // 64)])
    centre, scale = means.mean((0, 1, 2)), means.std((0, 1, 2))
    ones = np.ones_like(scale)
    quant, post = params["quant_conv"], params["post_quant_conv"]
    shift = np.concatenate([-centre / scale, -2 * np.log(scale)])
    factor = np.concatenate([1 / scale, ones])
    quant = {"kernel": quant["kernel"] * factor, "bias": quant["bias"] * factor + shift}
    kernel = post["kernel"]  # (1, 1, in, out)
    bias = post["bias"] + np.einsum("i,io->o", centre, np.asarray(kernel[0, 0]))
    post = {"kernel": kernel * scale[:, None], "bias": bias}
    return {**params, "quant_conv": quant, "post_quant_conv": post}


def psnr(params: Any, config: VAEConfig, pixels: np.ndarray) -> float:
    """Reconstruction quality in dB, from the posterior's mean, over all of `pixels`."""
    run = jax.jit(lambda p, x: jnp.clip(AutoencoderKL(config).apply({"params": p}, x), -1, 1))
    errors = [
        np.mean(np.square(run(params, chunk) - chunk))
        for chunk in np.split(pixels, len(pixels) // 64)
    ]
    return float(10 * np.log10(4 / np.mean(errors)))
