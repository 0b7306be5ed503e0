"""Which words of a caption light up which part of a picture: cross-attention as heat maps.

The method of DAAM (arXiv 2210.04885) on a given picture instead of a generated one: attention
probabilities over heads, layers and timesteps, each word's tokens added up.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dsd_jax.config import score_spec
from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.diffusion.seeds import check_seed
from dsd_jax.diffusion.tokenization import caption_words, check_captions
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, open_image, read_images
from dsd_jax.matching import score_functions
from dsd_jax.matching.match_scores import pixel_key
from dsd_jax.models.attention import attention_maps
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts import prompt_metadata
from dsd_jax.prompts.prompt_files import read_prompts
from dsd_jax.prompts.prompt_params import by_layer


def explain(
    model: Model,
    image: ImageInput,
    caption: str,
    *,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: Mapping[str, Any] | str | Path | None = None,
    layers: Sequence[str] | str | None = "all",
    force: bool = False,
) -> tuple[list[str], np.ndarray]:
    """Where each word of `caption` is attended to in `image`.

    Args:
        model: from `dsd_jax.load`.
        image: path, PIL image or uint8 array (H, W, 3).
        caption: a sentence.
        timesteps: how many noise levels to average over; by default as many as the folder of
            prompts was learned at, or 10.
        seed: of the noise.
        prompts: a trained prompts pytree, or the folder `train` wrote it to.
        layers: whose maps are averaged: paths, "all", or None for the authors' choice.
        force: whether to use a folder of prompts at timesteps or on weights that they were not
            learned for.

    Returns:
        The words, and their maps (words, H, W) float32 at the picture's own size: the share of
        attention, 0 to 1, that a place gives to the word's tokens.

    Raises:
        UserError: the picture cannot be read, the caption is empty or has no words for the model, a
            layer is unknown, or the prompts were learned for something else.
    """
    (caption,) = check_captions([caption])
    words, spans = caption_words(model.tokenizer, caption)
    if not words:
        raise UserError(f"caption '{caption}' has no words that the model reads; name something.")
    chosen = score_functions.chosen_layers(model.unet, layers)
    _, timesteps = prompt_metadata.score_settings(prompts, None, timesteps, force=force)
    prompt_metadata.check_model(prompts, model, force=force)
    seed = check_seed(seed)
    steps = score_spec.timesteps(timesteps)
    score_spec.warn_of_count(timesteps)
    prompts = read_prompts(prompts, model.unet)
    picture = open_image(image)
    pixels = read_images([picture], model.image_size)
    latents, texts = model.latents(pixels), model.encode_captions([caption])
    key = np.array([pixel_key(pixels[0])], np.uint32)
    params, learned = model.params["unet"], by_layer(prompts)
    total = np.zeros((texts.states.shape[1], *model.latent_shape[:2]), np.float32)
    for step in steps:
        noise = noising.keyed_noise(np.array([seed]), key, step[None], model.latent_shape)[:, 0]
        noisy = model.schedule.add_noise(latents, noise, jnp.asarray([step]))
        net = model.unet, model.image_size, model.dtype, chosen
        total += _maps(*net, params, learned, noisy, step[None], texts)
    maps = np.stack([total[start:end].sum(axis=0) for start, end in spans]) / len(steps)
    return words, np.stack([_enlarged(heat, picture.size) for heat in maps])


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _maps(
    config: UNetConfig,
    image_size: int,
    dtype: Any,
    layers: tuple[str, ...],
    params: Any,
    learned: Any,
    noisy: jax.Array,
    timestep: jax.Array,
    texts: EncodedCaptions,
) -> jax.Array:
    """Mean over layers of the probabilities of each text position: (L, H, W)."""
    model = UNet2DCondition(config, attention_maps, dtype=dtype)
    states, pooled = texts.map(lambda x: x[:, None])
    _, maps = model.apply(
        {"params": params}, noisy, timestep, states, learned, pooled, image_size=image_size
    )
    grid, length = noisy.shape[1:3], texts.states.shape[1]
    return jnp.mean(
        jnp.stack([_resized(maps[layer][0, :length], grid) for layer in layers]), axis=0
    )


def _resized(maps: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """(L, Q) of a coarser square grid -> (L, *grid), bilinear; probabilities stay probabilities."""
    side = int(maps.shape[1] ** 0.5)
    height = side * grid[0] // int((grid[0] * grid[1]) ** 0.5)
    coarse = maps.reshape(maps.shape[0], height, -1)
    return jax.image.resize(coarse, (maps.shape[0], *grid), "bilinear")


def _enlarged(heat: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bicubic to (width, height), kept within 0 and 1."""
    big = Image.fromarray(heat.astype(np.float32)).resize(size, Image.Resampling.BICUBIC)
    return np.clip(np.asarray(big), 0.0, 1.0)
