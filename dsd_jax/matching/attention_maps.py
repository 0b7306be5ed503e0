"""Attention maps: where the UNet attends to each word of a caption in an image.

The method of DAAM (arXiv 2210.04885), for a given image instead of a generated one: the
probabilities of cross-attention, averaged over heads, layers and timesteps and summed over the
tokens of a word.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.diffusion.tokenization import caption_words, check_captions
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, open_image, read_images
from dsd_jax.matching.forward import ForwardConfig, OutputSpec
from dsd_jax.matching.match_scores import MatchSettings, match_settings, pixel_key
from dsd_jax.models.attention import attention_maps
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.prompts.prompt_metadata import GivenPrompts
from dsd_jax.prompts.prompt_params import by_layer


def explain(
    model: Model,
    image: ImageInput,
    caption: str,
    *,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: GivenPrompts = None,
    layers: Sequence[str] | str | None = "all",
    force: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Return the words of a caption, and where each is attended to in an image.

    Args:
        model: from `dsd_jax.load`.
        image: path, PIL image or uint8 array (H, W, 3).
        caption: a sentence.
        timesteps: number of noise levels to average over; by default as many as the folder of
            prompts was learned at, or 10.
        seed: of the noise.
        prompts: what `learn` returns, the folder that it or `train` wrote, or a pytree.
        layers: layers whose maps are averaged: paths, "all", or None for the authors' choice.
        force: whether to use a folder of prompts for what they were not learned for.

    Returns:
        The words, and their maps (words, H, W) float32 at the size of the image: the share of
        attention, 0 to 1, that a pixel gives to the tokens of the word.

    Raises:
        UserError: the image cannot be read, the caption is empty or has no words for the model, a
            layer is unknown, or the prompts were learned for something else.
    """
    (caption,) = check_captions([caption])
    words, spans = caption_words(model.tokenizer, caption)
    if not words:
        raise UserError(f"caption '{caption}' has no words that the model reads; name something.")
    settings = match_settings(
        model, prompts, None, timesteps, layers=layers, seed=seed, force=force, any_layers=True
    )
    opened = open_image(image)
    (pixels,) = read_images([opened], model.image_size)
    maps = _token_maps(model, pixels, caption, settings)
    word_maps = np.stack([maps[start:end].sum(axis=0) for start, end in spans])
    word_maps /= len(settings.timesteps)
    return words, np.stack([_enlarged(heat, opened.size) for heat in word_maps])


def _token_maps(
    model: Model, pixels: np.ndarray, caption: str, settings: MatchSettings
) -> np.ndarray:
    """Return the maps of all tokens, (L, h, w) float32, added up over timesteps."""
    config = ForwardConfig.of(model, OutputSpec(settings.layers, error=False, uncond=False))
    params, adapters = model.params["unet"], by_layer(settings.prompts)
    texts = model.encode_captions([caption])
    total = np.zeros((texts.states.shape[1], *model.latent_shape[:2]), np.float32)
    for timestep, noisy in _noisy_latents(model, pixels, settings.timesteps, settings.seed):
        total += _caption_maps(
            config, params, adapters, noisy=noisy, timestep=timestep, texts=texts
        )
    return total


def _noisy_latents(
    model: Model, pixels: np.ndarray, timesteps: np.ndarray, seed: int
) -> Iterator[tuple[np.ndarray, jax.Array]]:
    """Yield each timestep, (1,), and the image's noised latent at it, (1, h, w, D)."""
    latents, key = model.latents(pixels[None]), np.array([pixel_key(pixels)], np.uint32)
    for timestep in timesteps[:, None]:
        noise = noising.keyed_noise(np.array([seed]), key, timestep, model.latent_shape)[:, 0]
        yield timestep, model.schedule.add_noise(latents, noise, jnp.asarray(timestep))


@partial(jax.jit, static_argnums=0)
def _caption_maps(
    config: ForwardConfig,
    params: Any,
    adapters: Any,
    *,
    noisy: jax.Array,
    timestep: jax.Array,
    texts: EncodedCaptions,
) -> jax.Array:
    """Return the probabilities of each token, averaged over layers: (L, h, w)."""
    unet = UNet2DCondition(config.unet, attention_maps, dtype=config.dtype)
    states, pooled = texts.map(lambda x: x[:, None])
    maps: Any
    _, maps = unet.apply(
        {"params": params}, noisy, timestep, states, adapters, pooled, image_size=config.image_size
    )
    (_, height, width, _), length = noisy.shape, texts.states.shape[1]
    resized = [_resized(maps[x][0, :length], (height, width)) for x in config.outputs.layers]
    return jnp.mean(jnp.stack(resized), axis=0)


def _resized(maps: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Resize maps (L, N) of a coarser grid to (L, *grid), bilinear: they stay probabilities."""
    side = int(maps.shape[1] ** 0.5)
    height = side * grid[0] // int((grid[0] * grid[1]) ** 0.5)
    coarse = maps.reshape(maps.shape[0], height, -1)
    return jax.image.resize(coarse, (maps.shape[0], *grid), "bilinear")


def _enlarged(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to (width, height), bicubic, clipped to 0..1."""
    big = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(big), 0.0, 1.0)
