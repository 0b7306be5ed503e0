"""A benchmark's items, encoded once, and their terms: one caption and P pictures, or one picture
and J captions, the matching candidate first.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax import diffusion, hosts
from dsd_jax.cache import Cache
from dsd_jax.matching import group_terms
from dsd_jax.model import Model
from dsd_jax.sharding import shard_rows
from dsd_jax.terms import Terms, Wanted


class Items(NamedTuple):
    """Encoded items in the host's memory; item i is row i of each.

    latents: (n, P, h, w, channels) float32, scaled.
    states: (n, J, L, K) float32.
    numbers: (n,) int, each item's number in its split: what its noise is keyed by, so that all its
        candidates share timestep and noise.
    """

    latents: np.ndarray
    states: np.ndarray
    numbers: np.ndarray

    @property
    def pictures(self) -> int:
        """P."""
        return self.latents.shape[1]

    def take(self, rows: Sequence[int] | np.ndarray) -> "Items":
        """Some of the items."""
        rows = np.asarray(rows)
        return Items(self.latents[rows], self.states[rows], self.numbers[rows])


def encode(
    model: Model,
    captions: Sequence[Sequence[str]],
    images: np.ndarray,
    numbers: Sequence[int] | np.ndarray,
    cache: str | Path = "",
) -> Items:
    """Encode n times J captions and uint8 pictures (n, P, H, W, 3), each different one once.

    Args:
        model: whose encoders to use.
        captions: J of each item.
        images: P of each item.
        numbers: (n,) each item's number in its split.
        cache: folder of what earlier runs have encoded, and this one will have; "" for none.
    """
    flat = images.reshape(-1, *images.shape[2:])
    texts = [text for item in captions for text in item]
    latents = _rows(model.latents, flat, [x.tobytes() for x in flat], _cache(cache, "vae", model))
    states = _rows(
        model.encode_texts, texts, [x.encode() for x in texts], _cache(cache, "text", model)
    )
    return Items(
        latents.reshape(*images.shape[:2], *model.latent_shape),
        states.reshape(len(images), -1, *states.shape[1:]),
        np.asarray(numbers),
    )


def _cache(folder: str | Path, part: str, model: Model) -> Cache | None:
    if not folder:
        return None
    tokenizer = hashlib.sha256(model.tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    preparation = str(model.image_size) if part == "vae" else tokenizer
    return Cache(Path(folder).expanduser() / part, model.params[part], preparation)


def _rows(encoder: Any, rows: Any, inputs: list[bytes], cache: Cache | None) -> np.ndarray:
    """What the encoder says of every row, the same ones once."""
    if cache:
        return cache.rows(inputs, lambda some: encoder([rows[i] for i in some]))
    first = {content: number for number, content in reversed(list(enumerate(inputs)))}
    numbers = sorted(first.values())
    place = {inputs[number]: i for i, number in enumerate(numbers)}
    found = np.asarray(encoder([rows[i] for i in numbers]))
    return found[[place[content] for content in inputs]]


def item_terms(
    model: Model,
    items: Items,
    timesteps: np.ndarray,
    seeds: Sequence[int] | np.ndarray,
    prompts: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
    progress: str | None = None,
) -> Terms:
    """The terms of all candidates of every item, at every timestep under the noise of every seed.

    Returns:
        Terms with I = n * P, an item's pictures side by side, C = J, T = R * T, a seed's timesteps
        side by side. Noise depends on (seed, item's number, timestep) alone. With prompts the empty
        caption's row gets them too; see `matching.with_uncond`.
    """
    pictures, shape = items.pictures, model.latent_shape
    latents = items.latents.reshape(-1, *shape)
    numbers = np.repeat(items.numbers, pictures)
    seed_of, step_of = np.repeat(seeds, len(timesteps)), np.tile(timesteps, len(seeds))

    def noise(groups: np.ndarray, times: np.ndarray) -> jax.Array:
        here = shard_rows(model.mesh, numbers[groups])
        return diffusion.keyed_noise(seed_of[times], here, step_of[times], shape)

    return group_terms(
        model,
        lambda groups, times: latents[groups][:, None],
        noise,
        len(latents),
        items.states,
        step_of,
        prompts,
        wanted,
        progress=progress,
    )


def terms_of_all_hosts(terms: Terms, pictures: int, count: int) -> Terms:
    """From what each host has of its part of `count` items, the terms of all, on all hosts."""

    def by_item(x: jax.Array) -> jax.Array:
        return x.reshape(-1, pictures, *x.shape[1:])

    whole = hosts.gather(jax.tree.map(by_item, terms), count)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)


def candidate_scores(scores: jax.Array | np.ndarray, items: int) -> np.ndarray:
    """Scores (I, C) of `item_terms` as (n, candidates), the matching one first."""
    return np.asarray(scores).reshape(items, -1)
