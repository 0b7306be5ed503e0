"""The params that pre-training starts from, and the model folder and samples that it leaves.

Reference of the samples: Song et al. 2021 (DDIM, eta = 0); Ho and Salimans 2022 (guidance).
"""

import textwrap
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dsd_jax.clip.clip_files import save_clip
from dsd_jax.clip.clip_model import Clip, Normalizer
from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig
from dsd_jax.diffusion.noising import Schedule, keyed_noise
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.vae import AutoencoderKL
from dsd_jax.pretraining.network_configs import (
    bundled_tokenizer,
    clip_config,
    schedule,
    text_config,
    unet_config,
    vae_config,
)
from dsd_jax.weights.model_loading import load
from dsd_jax.weights.model_saving import save

_CAPTIONS = (
    "a cat on a blue background",
    "a big apple on a white background",
    "a small car on a green background",
    "a tree on a yellow background",
    "a cat to the left of an apple",
    "an apple to the left of a cat",
    "a big car above a small tree",
    "a small tree above a big car",
    "a fish to the right of a key on a pink background",
    "a key below a bell on a grey background",
    "a guitar to the left of a pizza on a red background",
    "a big butterfly above a small book on a purple background",
)
_STEPS, _GUIDANCE = 50, 3.0
_TILE, _LINE, _COLUMNS = 192, 34, 4


def starting_params(config: PretrainConfig) -> dict[str, Any] | None:
    """Return the params of the model that `config.start` names, or None where it names none.

    Where that model predicts something else (noise or v), the UNet's last layer starts at zero.

    Raises:
        UserError: that model has other networks than this config's.
    """
    if not config.start:
        return None
    model = load(config.start)
    expected = {
        "unet": unet_config(config),
        "vae": vae_config(config),
        "text": text_config(config, len(bundled_tokenizer())),
    }
    for part, network in expected.items():
        if getattr(model, part) != network:
            raise UserError(
                f"--config.start={config.start}: its {part} is {getattr(model, part)}, but this "
                f"config makes {network}; start from a model of the same shape, or from none."
            )
    if model.schedule == schedule(config):
        return model.params
    unet = model.params["unet"]
    last_layer = {"conv_out": jax.tree.map(jnp.zeros_like, unet["conv_out"])}
    return {**model.params, "unet": {**unet, **last_layer}}


def write_model(config: PretrainConfig, workdir: Path, params: Any) -> Model:
    """Write the model as a folder that `dsd_jax.load` and PyTorch diffusers read, in float16."""
    tokenizer, vae = bundled_tokenizer(), vae_config(config)
    model = Model(
        name=str(workdir / "model"),
        unet=unet_config(config),
        vae=vae,
        text=text_config(config, len(tokenizer)),
        schedule=schedule(config),
        params=params,
        tokenizer=tokenizer,
        image_size=vae.sample_size,
    )
    save(model, workdir / "model")
    print(f"the model is in {workdir / 'model'}")
    return model


def write_samples(model: Model, workdir: Path) -> None:
    """Write images generated for some captions of scenes, to look at."""
    contact_sheet(sample(model, _CAPTIONS, seed=0), _CAPTIONS).save(workdir / "samples.png")
    print(f"samples are in {workdir / 'samples.png'}")


def write_clip(config: ClipPretrainConfig, workdir: Path, params: Any) -> Clip:
    """Write the CLIP as a folder that `load_clip` and PyTorch transformers read, in float16."""
    tokenizer = bundled_tokenizer()
    network = clip_config(config, tokenizer)
    clip = Clip(str(workdir / "model"), network, params, tokenizer, Normalizer())
    save_clip(clip, workdir / "model")
    print(f"the model is in {workdir / 'model'}")
    return clip


def sample(model: Model, captions: Sequence[str], seed: int) -> np.ndarray:
    """Generate an image for each caption, uint8 (C, size, size, 3), from noise keyed by seed."""
    steps = np.linspace(model.schedule.num_timesteps - 1, 0, _STEPS).round().astype(np.int32)
    numbers, keys = np.arange(len(captions)), np.array([seed])
    latents = keyed_noise(keys, numbers, steps[:1], model.latent_shape)[:, 0]
    states = jnp.concatenate([model.encode_texts([""]), model.encode_texts(captions)])
    unet, vae = UNet2DCondition(model.unet), AutoencoderKL(model.vae, model.dtype)
    step = jax.jit(partial(_ddim_step, unet, model.schedule))
    inputs = model.params["unet"], states
    for now, after in zip(steps, [*steps[1:], -1], strict=True):
        latents = step(inputs, latents, (jnp.asarray(now), jnp.asarray(after)))
    decode = jax.jit(lambda p, z: vae.apply({"params": p}, z, method="decode"))
    pixels = decode(model.params["vae"], latents / model.vae.scaling_factor)
    return np.asarray(jnp.clip(127.5 * (pixels + 1), 0, 255)).astype(np.uint8)


def _ddim_step(
    unet: UNet2DCondition,
    schedule: Schedule,
    inputs: tuple[Any, jax.Array],
    latents: jax.Array,
    timesteps: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Return the latents (C, h, w, D) at the second of two timesteps; -1 is the end.

    `inputs` are the UNet's params and text states (1 + C, L, D), the empty caption's first.
    """
    (params, states), (now, after) = inputs, timesteps
    times = jnp.full(len(latents), now)
    both = jnp.stack([jnp.broadcast_to(states[0], states[1:].shape), states[1:]], axis=1)
    prediction, _ = unet.apply({"params": params}, latents, times, both)
    pairs = schedule.epsilon(prediction, jnp.repeat(latents, 2, 0), jnp.repeat(times, 2))
    uncond, cond = pairs[::2], pairs[1::2]
    noise = uncond + _GUIDANCE * (cond - uncond)
    signal, sigma = schedule.scales(now)
    clean = (latents - sigma * noise) / signal
    signal, sigma = schedule.scales(jnp.maximum(after, 0))
    return jnp.where(after < 0, clean, signal * clean + sigma * noise)


def contact_sheet(images: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """Draw all images in rows, with their captions below."""
    rows = -(-len(images) // _COLUMNS)
    sheet = Image.new("RGB", (_COLUMNS * _TILE, rows * (_TILE + _LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for i, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = (i % _COLUMNS) * _TILE, (i // _COLUMNS) * (_TILE + _LINE)
        tile = Image.fromarray(image).resize((_TILE - 8, _TILE - 8), Image.Resampling.LANCZOS)
        sheet.paste(tile, (x + 4, y + 4))
        for line, text in enumerate(textwrap.wrap(caption, 34)):
            at = (x + _TILE // 2, y + _TILE - 2 + 14 * line)
            draw.text(at, text, "black", font, anchor="ma")
    return sheet
