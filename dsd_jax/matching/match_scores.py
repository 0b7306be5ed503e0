"""Scores of every caption for every image: the match matrix, in one call."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsd_jax.config import score_spec
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.tokenization import check_captions
from dsd_jax.errors import UserError
from dsd_jax.io.images import ImageInput, read_images
from dsd_jax.io.progress import Stage, Work
from dsd_jax.io.validation import check_seed
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import NoiseKeys, Pairs, pair_terms
from dsd_jax.matching.call_plan import even_ranges
from dsd_jax.matching.forward import output_floats
from dsd_jax.prompts import prompt_compatibility
from dsd_jax.prompts.prompt_files import read_prompts
from dsd_jax.prompts.prompt_metadata import GivenPrompts, Learned

MOST_TIMESTEPS = 16  # whose outputs are in memory at a time, fewer where there are many pairs
MOST_FLOATS = 2**26  # of outputs that are in memory at a time, about


class MatchSettings(NamedTuple):
    """The checked settings of scores or attention maps.

    Attributes:
        method: a name in `config.score_spec.METHODS`.
        layers: paths of cross-attention layers.
        timesteps: (T,) int32.
        seed: of the noise.
        prompts: a prompts pytree; empty for the frozen model.
    """

    method: str
    layers: tuple[str, ...]
    timesteps: np.ndarray
    seed: int
    prompts: dict[str, Any]

    @property
    def weights(self) -> Mapping[str, Any] | None:
        """Learned weights of the method, if any."""
        return self.prompts.get("weights", {}).get(self.method)


def match_scores(
    model: Model,
    images: Sequence[ImageInput],
    captions: Sequence[str],
    *,
    method: str | None = None,
    timesteps: int | None = None,
    seed: int = 0,
    prompts: GivenPrompts = None,
    layers: Sequence[str] | str | None = None,
    chunk: int | None = None,
    progress: bool = False,
    force: bool = False,
) -> np.ndarray:
    """Return the scores of C captions for I images, (I, C) float32; higher is a better match.

    Scores of one method compare captions of an image, and images for a caption; they are not
    probabilities, and those of two methods are not comparable. A pair's score does not depend on
    what else is scored: noise is keyed by (seed, the image's pixels, timestep).

    Args:
        model: from `dsd_jax.load`.
        images: paths, PIL images or uint8 arrays (H, W, 3).
        captions: strings.
        method: a name in `config.score_spec.METHODS`; by default the one that the folder of prompts
            was learned for, or "dsd".
        timesteps: number of noise levels to average over; time grows with it, memory does not. By
            default as many as the folder of prompts was learned at, or 10.
        seed: of the noise.
        prompts: what `learn` returns, the folder that it or `train` wrote, or a pytree.
        layers: layers whose attention scores count: paths, "all", or None for the authors' choice.
        chunk: rows per device and call of the UNet; changes time and memory only.
        progress: whether to show a progress bar.
        force: whether to use a folder of prompts for what they were not learned for.

    Raises:
        UserError: an image cannot be read, a caption is empty, a name or number is out of range,
            or the prompts were learned for another method, timesteps, layers or params.
    """
    settings = match_settings(
        model, prompts, method, timesteps, layers=layers, seed=seed, force=force
    )
    return scores_with(model, images, captions, settings, chunk=chunk, progress=progress)


def scores_with(
    model: Model,
    images: Sequence[ImageInput],
    captions: Sequence[str],
    settings: MatchSettings,
    *,
    chunk: int | None,
    progress: bool,
) -> np.ndarray:
    """Return the scores that `match_scores` describes, with settings that are checked."""
    captions = check_captions(captions)
    with Stage("scoring", 1, shown=progress) as stage:
        with stage.waiting_for("the encoders"):
            pairs = _match_matrix(model, images, captions, settings)
        scores = _pair_scores(model, pairs, settings, chunk=chunk, work=Work(stage, 1))
    return score_functions.check_finite(scores, model.name)


def match_settings(
    model: Model,
    prompts: GivenPrompts,
    method: str | None,
    timesteps: int | None,
    *,
    layers: Sequence[str] | str | None,
    seed: int,
    force: bool,
    any_layers: bool = False,
) -> MatchSettings:
    """Check the arguments of `match_scores` or `explain`, and read the prompts.

    Args:
        model, prompts, method, timesteps, layers, seed, force: as in `match_scores`.
        any_layers: whether layers may be others than those that prompts were learned with.
    """
    if not isinstance(model, Model):
        raise UserError(f"model is {model!r}; expected what dsd_jax.load returns.")
    if prompts is not None and not isinstance(prompts, Learned | Mapping | str | Path):
        raise UserError(
            f"prompts is {prompts!r}; expected what dsd_jax.learn returns, a folder or a pytree of "
            "prompts."
        )
    if timesteps is not None and not isinstance(timesteps, int | np.integer):
        raise UserError(f"timesteps is {timesteps!r}; expected a whole number from 1 to 1000.")
    method, timesteps = prompt_compatibility.score_settings(prompts, method, timesteps, force=force)
    chosen = score_functions.chosen_layers(model.unet, layers)
    if score_spec.method_named(method).attention and not any_layers:
        prompt_compatibility.check_layers(prompts, chosen, force=force)
    prompt_compatibility.check_model(prompts, model, force=force)
    seed = check_seed(seed)
    chosen_timesteps = score_spec.timesteps(timesteps)
    score_spec.warn_of_count(timesteps)
    params = read_prompts(prompts, model.unet)
    return MatchSettings(method, chosen, chosen_timesteps, seed, params)


def _match_matrix(
    model: Model, images: Sequence[ImageInput], captions: Sequence[str], settings: MatchSettings
) -> Pairs:
    """Encode every image and caption; the noise is keyed by pixels."""
    pixels = read_images(images, model.image_size)
    seeds = np.full(len(settings.timesteps), settings.seed)
    keys = NoiseKeys(seeds, np.array([pixel_key(image) for image in pixels], np.uint32))
    latents = np.asarray(model.latents(pixels))
    texts = model.encode_captions(captions).map(np.asarray)
    every_image, every_caption = np.arange(len(pixels))[None], np.arange(len(captions))[None]
    return Pairs(latents, every_image, texts, every_caption, keys, settings.timesteps)


def _pair_scores(
    model: Model, pairs: Pairs, settings: MatchSettings, *, chunk: int | None, work: Work
) -> np.ndarray:
    """Return the scores of the pairs of a match matrix, (I, C), some timesteps at a time."""
    method, layers, weights = settings.method, settings.layers, settings.weights
    outputs = score_functions.required_outputs(model.unet, method, layers, weights)
    images, captions, count = pairs.images.size, pairs.captions.size, len(pairs.timesteps)
    floats = images * output_floats(model.unet, outputs, captions)
    together = max(1, min(MOST_TIMESTEPS, MOST_FLOATS // max(1, floats)))
    scores = np.empty((images, captions, count), np.float32)
    for times in even_ranges(count, together):
        terms = pair_terms(
            model,
            pairs.at_timesteps(times),
            outputs,
            prompts=settings.prompts,
            chunk=chunk,
            work=work.part(len(times) / count),
        )
        scores[..., times] = score_functions.per_timestep_scores(terms, method, layers, weights)
    return np.asarray(score_functions.mean_over_timesteps(jnp.asarray(scores), weights))


def pixel_key(pixels: np.ndarray) -> int:
    """Return a number that stands for an image: the first 32 bits of the SHA-256 of its pixels."""
    return int.from_bytes(hashlib.sha256(pixels.tobytes()).digest()[:4], "little")
