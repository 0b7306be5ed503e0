"""Attention maps: where the UNet attends to each token of a caption in an image.

As DAAM (arXiv 2210.04885) does for generated images: the probabilities of cross-attention, averaged
over heads, layers and timesteps. Unlike there, each of these counts alike, however little attention
it has for a token: its map is divided by its mean over the image first. `explanation` adds maps up
over the tokens of a word and draws them; `benchmarks.pointing` measures how often they are right.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.matching.forward import ForwardConfig, OutputSpec
from dsd_jax.matching.match_scores import MatchSettings, pixel_key
from dsd_jax.models.attention import attention_maps
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.prompts.prompt_params import by_layer


def token_maps(
    model: Model, pixels: np.ndarray, caption: str, settings: MatchSettings
) -> np.ndarray:
    """Return the maps of all tokens, (L, h, w) float32.

    The mean of a map is the share of the image's attention that its token gets, 0 to 1.

    Args:
        model: from `dsd_jax.load`.
        pixels: uint8 image of the model's size.
        caption: a sentence.
        settings: layers, timesteps, seed and prompts.
    """
    config = ForwardConfig.of(model, OutputSpec(settings.layers, error=False, uncond=False))
    params, adapters = model.params["unet"], by_layer(settings.prompts)
    texts, mean = model.encode_captions([caption]), BalancedMean()
    for timestep, noisy, _ in noisy_latents(model, pixels, settings.timesteps, settings.seed):
        inputs = {"noisy": noisy, "timesteps": timestep, "texts": texts}
        maps = np.asarray(layer_maps(config, params, adapters, **inputs)[:, 0])
        mean.add(balanced_mean(maps))
    return mean.value


class BalancedMean:
    """A mean of maps, each of which counts alike however high it is.

    Averaged are the maps' multiples of their own means over the image; the result has the mean of
    all.
    """

    def __init__(self):
        self._count = 0
        self._contrast: Any = np.float32(0.0)
        self._mean: Any = np.float32(0.0)

    def add(self, maps: np.ndarray) -> None:
        """Add maps (..., h, w) of the same shape as the others."""
        mean = maps.mean(axis=(-2, -1), keepdims=True)
        self._contrast = self._contrast + maps / np.maximum(mean, np.finfo(maps.dtype).tiny)
        self._mean = self._mean + mean
        self._count += 1

    @property
    def value(self) -> np.ndarray:
        """The mean of the maps that were added, (..., h, w)."""
        return self._contrast * self._mean / self._count**2


def balanced_mean(maps: np.ndarray) -> np.ndarray:
    """Return the `BalancedMean` of maps (n, ..., h, w) over n: (..., h, w)."""
    mean = BalancedMean()
    for each in maps:
        mean.add(each)
    return mean.value


def noisy_latents(
    model: Model, pixels: np.ndarray, timesteps: np.ndarray, seed: int
) -> Iterator[tuple[np.ndarray, jax.Array, jax.Array]]:
    """Yield each timestep, (1,), the image's noised latent at it and the noise, (1, h, w, D)."""
    latents, key = model.latents(pixels[None]), np.array([pixel_key(pixels)], np.uint32)
    for timestep in timesteps[:, None]:
        noise = noising.keyed_noise(np.array([seed]), key, timestep, model.latent_shape)[:, 0]
        yield timestep, model.schedule.add_noise(latents, noise, jnp.asarray(timestep)), noise


@partial(jax.jit, static_argnums=0)
def layer_maps(
    config: ForwardConfig,
    params: Any,
    adapters: Any,
    *,
    noisy: jax.Array,
    timesteps: jax.Array,
    texts: EncodedCaptions,
) -> jax.Array:
    """Return the maps of each token in each layer of `config`, all heads counting alike.

    Args:
        config: the static arguments.
        params: of the UNet.
        adapters: trained parameters by attention layer (`prompt_params.by_layer`).
        noisy: noised latents (B, h, w, D).
        timesteps: (B,).
        texts: states of B captions, one for each latent.

    Returns:
        (layers, B, L, h, w) float32; learned tokens have no map.
    """
    unet = UNet2DCondition(config.unet, attention_maps, dtype=config.dtype)
    states, pooled = texts.map(lambda x: x[:, None])
    maps: Any
    _, maps = unet.apply(
        {"params": params}, noisy, timesteps, states, adapters, pooled, image_size=config.image_size
    )
    (rows, height, width, _), length = noisy.shape, texts.states.shape[1]
    found = []
    for layer in config.outputs.layers:
        flat = maps[layer][:, :length].reshape(rows * length, -1)
        found.append(_resized(flat, (height, width)).reshape(rows, length, height, width))
    return jnp.stack(found)


def _resized(maps: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Resize maps (L, N) of a coarser grid to (L, *grid), bilinear: they stay probabilities."""
    side = int(maps.shape[1] ** 0.5)
    height = side * grid[0] // int((grid[0] * grid[1]) ** 0.5)
    coarse = maps.reshape(maps.shape[0], height, -1)
    return jax.image.resize(coarse, (maps.shape[0], *grid), "bilinear")
