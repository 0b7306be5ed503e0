"""From pictures and captions to a match matrix, in one call."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dsd_jax.config import score_spec
from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.seeds import check_seed
from dsd_jax.diffusion.tokenization import check_captions
from dsd_jax.distributed.sharding import shard_rows
from dsd_jax.io.images import ImageInput, read_images
from dsd_jax.io.terminal import advance
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import Rows, even_ranges, one_set, score_terms
from dsd_jax.matching.forward import output_floats
from dsd_jax.matching.score_functions import check_finite
from dsd_jax.prompts import prompt_metadata
from dsd_jax.prompts.prompt_files import read_prompts

TIMES = 16  # timesteps whose terms are in memory at a time, fewer where there are many pairs
FLOATS = 2**26  # of terms that are in memory at a time, about
_BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"


def match_scores(
    model: Model,
    images: Sequence[ImageInput],
    captions: Sequence[str],
    *,
    method: str | None = None,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: Mapping[str, Any] | str | Path | None = None,
    layers: Sequence[str] | str | None = None,
    chunk: int | None = None,
    progress: bool = False,
    force: bool = False,
) -> np.ndarray:
    """How well every caption fits every picture; higher is better.

    Scores of one method compare captions of a picture, and pictures for a caption; they are not
    probabilities and those of two methods are not comparable. A pair's score does not depend on
    what else is scored: noise is keyed by (seed, the picture's pixels, timestep).

    Args:
        model: from `dsd_jax.load`.
        images: paths, PIL images or uint8 arrays (H, W, 3); I of them.
        captions: C strings.
        method: "attention", "noise", "itm", "relative" or "dsd" (`methods`); by default the
            one that the folder of prompts was learned for, or "dsd".
        timesteps: how many noise levels to average over; time grows with it, memory does not. By
            default as many as the folder of prompts was learned at, or 10.
        seed: of the noise.
        prompts: a trained prompts pytree, or the folder `train` wrote it to.
        layers: whose attention scores count: paths, "all", or None for the authors' choice.
        chunk: rows per device and call of the UNet; changes time and memory only.
        progress: whether to show a progress bar.
        force: whether to use a folder of prompts for a method, timesteps, layers or weights that
            they were not learned for.

    Returns:
        (I, C) float32.

    Raises:
        UserError: a picture cannot be read, a caption is empty, a name or number is out of range,
            or the prompts were learned for something else.
    """
    captions = check_captions(captions)
    method, timesteps = prompt_metadata.score_settings(prompts, method, timesteps, force=force)
    chosen = score_functions.chosen_layers(model.unet, layers)
    if score_spec.method_named(method).attention and isinstance(prompts, str | Path):
        prompt_metadata.check_layers(prompts, chosen, force=force)
    prompt_metadata.check_model(prompts, model, force=force)
    seed = check_seed(seed)
    steps = score_spec.timesteps(timesteps)
    score_spec.warn_of_count(timesteps)
    prompts = read_prompts(prompts, model.unet)
    learned = prompts.get("weights", {}).get(method)
    pixels = read_images(images, model.image_size)
    latents = np.asarray(model.latents(pixels))
    sets = one_set(model.encode_captions(captions).map(np.asarray))
    wanted = score_functions.required_outputs(model.unet, method, chosen, learned)
    floats = len(pixels) * output_floats(model.unet, wanted, len(captions))
    found = np.empty((len(pixels), len(captions), len(steps)), np.float32)
    with tqdm(total=100, desc="matching", bar_format=_BAR, disable=not progress) as bar:
        for piece in even_ranges(len(steps), max(1, min(TIMES, FLOATS // max(1, floats)))):
            part = 100 * len(piece) / len(steps)
            terms = score_terms(
                model,
                lambda groups, times: latents[groups][:, None],
                _noise_of(model, pixels, seed, steps[piece]),
                len(pixels),
                sets,
                steps[piece],
                prompts,
                wanted,
                chunk,
                lambda share, part=part: advance(bar, share * part),
            )
            found[..., piece] = score_functions.per_timestep_scores(terms, method, chosen, learned)
    scores = np.asarray(score_functions.mean_over_timesteps(jnp.asarray(found), learned))
    return check_finite(scores, model.name)


def _noise_of(model: Model, pixels: np.ndarray, seed: int, steps: np.ndarray) -> Rows:
    """Noise keyed by what a picture looks like, drawn on the device that needs it."""
    keys = np.array([pixel_key(picture) for picture in pixels], np.uint32)

    def noise(groups: np.ndarray, times: np.ndarray) -> jax.Array:
        seeds, here = np.full(len(times), seed), shard_rows(model.mesh, keys[groups])
        return noising.keyed_noise(seeds, here, steps[times], model.latent_shape)

    return noise


def pixel_key(pixels: np.ndarray) -> int:
    """A number that stands for a picture, from its pixels alone: 32 bits of their SHA-256."""
    return int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:4], "little")
