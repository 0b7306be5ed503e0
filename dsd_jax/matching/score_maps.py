"""Score maps: where in an image one caption's score is higher than another's.

The difference of two scores of an image, under the same noise, is a sum over positions for every
method (`score_functions`), so a map of it adds up to the difference:

    attention           lse is a mean over queries, each of which is a position of its layer's grid
    noise, itm          the squared error is a sum over the latent; the empty caption's cancels out
    noise-l1, -huber    so are these norms
    relative            the squared errors are divided by one number, the empty caption's error
    dsd                 a - b = (a^2 - b^2) / (a + b) for the norms a and b of the two errors

Learned weights are factors of these sums, one for each timestep, layer and head.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.config.score_spec import method_named
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.matching.attention_maps import noisy_latents
from dsd_jax.matching.forward import NORMS, ForwardConfig, all_outputs
from dsd_jax.matching.match_scores import MatchSettings
from dsd_jax.matching.score_functions import mean_over_timesteps
from dsd_jax.models.attention import query_lse
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.prompts.prompt_params import by_layer


class PositionTerms(NamedTuple):
    """The outputs of one call of the UNet, at every position, of which scores are sums.

    Attributes:
        lse: {layer: (H, N)}, logsumexp over tokens of every head and query.
        error: (h, w), squared error of the predicted noise, summed over channels.
        norms: {name in `NORMS`: (h, w)}, summed over channels and divided so that all positions
            add up to the mean over the latent.
    """

    lse: dict[str, np.ndarray]
    error: np.ndarray
    norms: dict[str, np.ndarray]


def difference_map(
    model: Model, pixels: np.ndarray, captions: tuple[str, str], settings: MatchSettings
) -> np.ndarray:
    """Return where the first caption's score is above the second's, (h, w) float64.

    Its sum is the difference of the scores of `match_scores`. Like there, the empty caption is the
    frozen model's: as the second one, it makes the sum the score itself for itm and relative.

    Args:
        model: from `dsd_jax.load`.
        pixels: uint8 image of the model's size.
        captions: two sentences; the second may be empty.
        settings: method, layers, timesteps, seed and prompts.
    """
    weights, grid = settings.weights, model.latent_shape[:2]
    # All that any method reads, so that one compiled program serves all of them.
    outputs = all_outputs(model.unet)._replace(uncond=False, norms=tuple(NORMS))
    run = partial(_terms, ForwardConfig.of(model, outputs), model.params["unet"])
    first, second = (model.encode_captions([caption]) for caption in captions)
    empty = model.encode_captions([""]) if settings.method == "relative" else None
    learned, frozen = by_layer(settings.prompts), by_layer({})
    each = jnp.eye(len(settings.timesteps), dtype=jnp.float32)
    shares = np.asarray(mean_over_timesteps(each, weights), np.float64)  # of every timestep
    total = np.zeros(grid)
    noised = noisy_latents(model, pixels, settings.timesteps, settings.seed)
    for share, (timestep, noisy, noise) in zip(shares, noised, strict=True):
        inputs = {"timestep": timestep, "noisy": noisy, "noise": noise}
        ours = run(learned, text=first, **inputs)
        theirs = run(learned if captions[1] else frozen, text=second, **inputs)
        uncond = 1.0 if empty is None else float(run(frozen, text=empty, **inputs).error.sum())
        total += share * _difference(ours, theirs, settings, uncond, grid)
    return total


def _difference(
    ours: PositionTerms,
    theirs: PositionTerms,
    settings: MatchSettings,
    uncond: float,
    grid: tuple[int, int],
) -> np.ndarray:
    """Return the map of one timestep; `uncond`: squared error of the empty caption."""
    method, learned = method_named(settings.method), settings.weights or {}
    total = np.zeros(grid)
    weighted = learned.get("lse", {})
    for layer in {*(settings.layers if method.attention else ()), *weighted}:
        lse = ours.lse[layer]
        share = np.zeros(len(lse))
        if method.attention and layer in settings.layers:
            share += 1.0 / (len(lse) * len(settings.layers))
        share += np.asarray(weighted.get(layer, 0.0), np.float64)
        queries = share @ (lse - theirs.lse[layer]) / lse.shape[1]
        total += spread(_square(queries, grid), grid)
    if method.error:
        factor = 1.0 + float(learned.get("error", 0.0))
        total += factor * _error_difference(ours, theirs, settings.method, uncond)
    return total


def _error_difference(
    ours: PositionTerms, theirs: PositionTerms, name: str, uncond: float
) -> np.ndarray:
    """Return the part of a map that prediction errors make, (h, w)."""
    norm = method_named(name).norm
    if norm:
        return theirs.norms[norm] - ours.norms[norm]
    divisor = {
        "relative": uncond,
        "dsd": float(np.sqrt(theirs.error.sum()) + np.sqrt(ours.error.sum())),
    }.get(name, 1.0)
    return (theirs.error - ours.error) / divisor


def _terms(config: ForwardConfig, params: Any, adapters: Any, **inputs: Any) -> PositionTerms:
    """Return `_forward` of the same in the host's memory, so that sums are exact."""
    found = _forward(config, params, adapters, **inputs)
    return jax.tree.map(lambda x: np.asarray(x, np.float64), found)


@partial(jax.jit, static_argnums=0)
def _forward(
    config: ForwardConfig,
    params: Any,
    adapters: Any,
    *,
    noisy: jax.Array,
    noise: jax.Array,
    timestep: jax.Array,
    text: EncodedCaptions,
) -> PositionTerms:
    """Run the UNet for one latent and one caption, and keep every position apart."""
    unet = UNet2DCondition(config.unet, query_lse, dtype=config.dtype)
    states, pooled = text.map(lambda x: x[:, None])
    lse: Any
    prediction, lse = unet.apply(
        {"params": params}, noisy, timestep, states, adapters, pooled, image_size=config.image_size
    )
    difference = (noise - config.schedule.epsilon(prediction, noisy, timestep))[0]
    norms: Any = {
        name: jnp.sum(NORMS[name](difference), axis=-1) / difference.size
        for name in config.outputs.norms
    }
    error: Any = jnp.sum(jnp.square(difference), axis=-1)
    return PositionTerms({layer: lse[layer][0] for layer in config.outputs.layers}, error, norms)


def _square(queries: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Return the queries of a layer (N,) as rows and columns in the proportions of `grid`."""
    height = round((len(queries) * grid[0] / grid[1]) ** 0.5)
    return queries.reshape(height, -1)


def spread(heat: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Resize a map (h, w) to another shape smoothly, so that its sum stays what it was."""
    return _spreading(heat.shape[0], shape[0]) @ heat @ _spreading(heat.shape[1], shape[1]).T


def _spreading(cells: int, pixels: int) -> np.ndarray:
    """Return the share of each of a line's cells that each of its pixels gets, (pixels, cells).

    Quadratic splines around the cells' centers, mirrored at both ends: smooth, nowhere negative.
    """
    if cells == pixels:
        return np.eye(cells)
    centers, places = (np.arange(cells) + 0.5) / cells, (np.arange(pixels) + 0.5) / pixels
    width = max(1 / cells, 1 / pixels)
    mirrored = np.stack([places, -places, 2 - places])
    distance = np.abs(mirrored[..., None] - centers) / width
    inner, outer = 0.75 - distance**2, 0.5 * np.maximum(1.5 - distance, 0) ** 2
    weights = np.where(distance < 0.5, inner, outer).sum(axis=0)
    return weights / weights.sum(axis=0)
