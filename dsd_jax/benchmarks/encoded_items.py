"""A benchmark's items, encoded once, and their terms: one caption and P pictures, or one picture
and J captions, the matching candidate first.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.data.examples import Examples
from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.text_states import Texts
from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import shard_rows
from dsd_jax.io.host_arrays import stacked
from dsd_jax.matching.batching import Sets, Tick, even_pieces, group_terms
from dsd_jax.matching.forward import Terms, Wanted
from dsd_jax.statistics.standard_errors import numbered

TOGETHER = 1024  # pictures or captions that are encoded at a time


class Items(NamedTuple):
    """Encoded items on the host, each different picture and caption once.

    latents: (U, h, w, channels) float32, scaled; mapped to a file where they are large.
    texts: of V captions, likewise.
    pictures: (n, P) int, which latents each item has; the matching one first.
    captions: (n, J) int, which texts.
    numbers: (n,) int, each item's number in its split: what its noise is keyed by, so that all its
        candidates share timestep and noise.
    clusters: (n,) int; items with the same one are not independent of each other.
    """

    latents: np.ndarray
    texts: Texts
    pictures: np.ndarray
    captions: np.ndarray
    numbers: np.ndarray
    clusters: np.ndarray

    @property
    def count(self) -> int:
        """The number of items, n."""
        return len(self.numbers)

    def take(self, rows: Sequence[int] | np.ndarray) -> "Items":
        """Some of the items."""
        rows = np.asarray(rows)
        return self._replace(
            pictures=self.pictures[rows],
            captions=self.captions[rows],
            numbers=self.numbers[rows],
            clusters=self.clusters[rows],
        )

    def pick(self, candidates: np.ndarray) -> "Items":
        """The same with some of the candidates, (n, k) numbers of pictures or captions, which it
        has several of.
        """
        if self.pictures.shape[1] > 1:
            return self._replace(pictures=np.take_along_axis(self.pictures, candidates, axis=1))
        return self._replace(captions=np.take_along_axis(self.captions, candidates, axis=1))


def encode(
    encoders: Encoders,
    examples: Examples,
    numbers: Sequence[int] | np.ndarray,
    together: bool = False,
) -> Items:
    """Some items of a split, read and encoded, each different picture and caption once.

    With `together`, all hosts ask for the same ones and each encodes its part.
    """
    keys = [key for number in numbers for key in examples.pictures[number]]
    captions = [text for number in numbers for text in examples.captions[number]]
    latents, pictures = _encoded(keys, lambda some: encoders.pictures(examples, some, together)[0])
    texts, words = _encoded(captions, lambda some: encoders.captions(some, together)[0])
    return Items(
        latents,
        texts,
        pictures.reshape(len(numbers), -1),
        words.reshape(len(numbers), -1),
        np.asarray(numbers),
        numbered([examples.clusters[number] for number in numbers]),
    )


def _encoded(keys: Sequence[Hashable], compute: Callable[[list], Any]) -> tuple[Any, np.ndarray]:
    """Return what `compute` makes of the different ones of `keys`, and which of them each is."""
    numbers = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    different = list(numbers)
    parts = (
        compute([different[i] for i in piece]) for piece in even_pieces(len(different), TOGETHER)
    )
    return stacked(parts, len(different)), np.array([numbers[key] for key in keys])


def item_terms(
    model: Model,
    items: Items,
    timesteps: np.ndarray,
    seeds: Sequence[int] | np.ndarray,
    prompts: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
    tick: Tick = lambda share: None,
) -> Terms:
    """The terms of all candidates of every item, at every timestep under the noise of every seed.

    Returns:
        Terms with I = n * P, an item's pictures side by side, C = J, T = R * T, a seed's timesteps
        side by side. Noise depends on (seed, item's number, timestep) alone. With prompts the empty
        caption's row gets them too; see `matching.with_uncond`.
    """
    pictures, shape = items.pictures.reshape(-1), model.latent_shape
    numbers = np.repeat(items.numbers, items.pictures.shape[1])
    seed_of, step_of = np.repeat(seeds, len(timesteps)), np.tile(timesteps, len(seeds))

    def noise(groups: np.ndarray, times: np.ndarray) -> jax.Array:
        here = shard_rows(model.mesh, numbers[groups])
        return noising.keyed_noise(seed_of[times], here, step_of[times], shape)

    return group_terms(
        model,
        lambda groups, times: items.latents[pictures[groups]][:, None],
        noise,
        len(pictures),
        Sets(items.texts, items.captions),
        step_of,
        prompts,
        wanted,
        tick=tick,
    )


def terms_of_all_hosts(terms: Terms, pictures: int, count: int) -> Terms:
    """From what each host has of its part of `count` items, the terms of all, on all hosts."""

    def by_item(x: jax.Array) -> jax.Array:
        return x.reshape(-1, pictures, *x.shape[1:])

    whole = processes.gather(jax.tree.map(by_item, terms), count)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)
