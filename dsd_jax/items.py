"""A benchmark's items, encoded once, and the terms of all of them: one caption, two pictures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax import diffusion
from dsd_jax.matching import group_terms
from dsd_jax.model import Model
from dsd_jax.terms import Terms, Wanted

PICTURES = 2  # candidates of an item: the caption's own picture, then the other


class Items(NamedTuple):
    """Encoded items; item i is row i of each.

    latents: (n, 2, h, w, channels) float32, scaled, the matching picture first.
    states: (n, L, K) float32.
    numbers: (n,) int, each item's number in its split: what its noise is keyed by, so that both
        candidates share timestep and noise.
    """

    latents: jax.Array
    states: jax.Array
    numbers: np.ndarray

    def take(self, rows: Sequence[int] | np.ndarray) -> "Items":
        """Some of the items."""
        rows = np.asarray(rows)
        return Items(self.latents[rows], self.states[rows], self.numbers[rows])


def encode(model: Model, captions: Sequence[str], images: np.ndarray) -> Items:
    """Encode n captions and pictures (n, 2, H, W, 3), each once."""
    flat = images.reshape(-1, *images.shape[2:])
    latents = model.latents(flat).reshape(*images.shape[:2], *model.latent_shape)
    return Items(latents, model.encode_texts(captions), np.arange(len(captions)))


def item_terms(
    model: Model,
    items: Items,
    timesteps: np.ndarray,
    seeds: Sequence[int],
    prompts: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
    progress: str | None = None,
) -> Terms:
    """The terms of both candidates of every item, at every timestep under the noise of every seed.

    Returns:
        Terms with I = n * 2, an item's candidates side by side, C = 1, T = R * T, a seed's
        timesteps side by side. Noise depends on (seed, item's number, timestep) alone. With
        prompts the empty caption's row gets them too; see `matching.with_uncond`.
    """
    latents = items.latents.reshape(-1, *model.latent_shape)
    numbers = np.repeat(items.numbers, PICTURES)
    seed_of, step_of = np.repeat(seeds, len(timesteps)), np.tile(timesteps, len(seeds))

    def noise(groups: np.ndarray, times: np.ndarray) -> jax.Array:
        return diffusion.keyed_noise(
            seed_of[times], numbers[groups], step_of[times], model.latent_shape
        )

    return group_terms(
        model,
        lambda groups, times: latents[groups][:, None],
        noise,
        items.states,
        np.repeat(np.arange(len(items.states)), PICTURES)[:, None],
        step_of,
        prompts,
        wanted,
        progress=progress,
    )


def candidate_scores(scores: jax.Array) -> np.ndarray:
    """Scores of `item_terms` as (n, 2): the matching picture's, then the other's."""
    return np.asarray(jnp.reshape(scores, (-1, PICTURES)))
