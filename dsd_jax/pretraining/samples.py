"""Pictures drawn by a pre-trained model, to look at: DDIM with classifier-free guidance.

Reference: Song et al. 2021 (DDIM, eta = 0); Ho and Salimans 2022 (guidance).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dsd_jax.diffusion.noising import keyed_noise
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.schedule import Schedule
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import AutoencoderKL

CAPTIONS = (
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
STEPS, GUIDANCE = 50, 3.0
TILE, LINE, COLUMNS = 192, 34, 4


def sample(model: Model, captions: Sequence[str], seed: int) -> np.ndarray:
    """Draw every caption: uint8 (C, size, size, 3). Noise is keyed by seed and number."""
    count = len(captions)
    steps = np.linspace(model.schedule.steps - 1, 0, STEPS).round().astype(np.int32)
    latents = keyed_noise(np.array([seed]), np.arange(count), steps[:1], model.latent_shape)[:, 0]
    states = jnp.concatenate([model.encode_texts([""]), model.encode_texts(captions)])
    step = partial(_step, model.unet, model.schedule, model.params["unet"], states)
    for now, then in zip(steps, [*steps[1:], -1], strict=True):
        latents = step(latents, jnp.asarray(now), jnp.asarray(then))
    vae = AutoencoderKL(model.vae, model.dtype)
    decode = jax.jit(lambda p, z: vae.apply({"params": p}, z, method="decode"))
    pixels = decode(model.params["vae"], latents / model.vae.scaling_factor)
    return np.asarray(jnp.clip(127.5 * (pixels + 1), 0, 255)).astype(np.uint8)


@partial(jax.jit, static_argnums=(0, 1))
def _step(
    config: UNetConfig,
    schedule: Schedule,
    params: Any,
    states: jax.Array,
    latents: jax.Array,
    now: jax.Array,
    then: jax.Array,
) -> jax.Array:
    """One DDIM step from timestep `now` to `then`; -1 is the end."""
    count = len(latents)
    times = jnp.full(count, now)
    both = jnp.stack([jnp.broadcast_to(states[0], states[1:].shape), states[1:]], axis=1)
    prediction, _ = UNet2DCondition(config).apply({"params": params}, latents, times, both)
    pairs = schedule.epsilon(prediction, jnp.repeat(latents, 2, 0), jnp.repeat(times, 2))
    uncond, cond = pairs[::2], pairs[1::2]
    noise = uncond + GUIDANCE * (cond - uncond)
    signal, sigma = schedule.scales(now)
    clean = (latents - sigma * noise) / signal
    signal, sigma = schedule.scales(jnp.maximum(then, 0))
    return jnp.where(then < 0, clean, signal * clean + sigma * noise)


def contact_sheet(images: np.ndarray, captions: Sequence[str]) -> Image.Image:
    """All pictures with their captions below."""
    rows = -(-len(images) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * TILE, rows * (TILE + LINE)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for number, (image, text) in enumerate(zip(images, captions, strict=True)):
        x, y = (number % COLUMNS) * TILE, (number // COLUMNS) * (TILE + LINE)
        picture = Image.fromarray(image).resize((TILE - 8, TILE - 8), Image.Resampling.LANCZOS)
        sheet.paste(picture, (x + 4, y + 4))
        middle = len(text) // 2 if len(text) > 34 else len(text)
        split = text.find(" ", middle) if middle < len(text) else len(text)
        lines = [text[:split], text[split:].strip()] if split > 0 else [text]
        for i, line in enumerate(lines):
            draw.text((x + TILE // 2, y + TILE - 2 + 14 * i), line, "black", font, anchor="ma")
    return sheet
