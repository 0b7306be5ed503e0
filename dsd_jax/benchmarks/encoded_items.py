"""Items of a benchmark, encoded once, and the UNet's outputs for their candidates.

An item is one caption and P images, or one image and J captions; the matching candidate is the
first.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.data.examples import Examples
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.distributed import processes
from dsd_jax.io.host_arrays import stacked
from dsd_jax.io.progress import UNSEEN, Work
from dsd_jax.matching.batching import NoiseKeys, Pairs, pair_terms
from dsd_jax.matching.call_plan import even_ranges
from dsd_jax.matching.forward import OutputSpec, Terms
from dsd_jax.statistics.standard_errors import cluster_ids

ENCODED_TOGETHER = 1024  # images or captions

Tree = TypeVar("Tree")


class EncodedItems(NamedTuple):
    """The encoded items in the host's memory, each different image and caption once.

    Attributes:
        latents: (U, h, w, channels) float32, scaled; mapped to a file where they are large.
        texts: text states of the V different captions, likewise.
        images: (n, P) int, rows of `latents`; the matching image of an item is the first.
        captions: (n, J) int, rows of `texts`; the matching caption of an item is the first.
        indices: (n,) int, the index of each item in its split, by which its noise is keyed: all its
            candidates share timestep and noise.
        clusters: (n,) int; items of one cluster are not independent of each other.
    """

    latents: np.ndarray
    texts: EncodedCaptions
    images: np.ndarray
    captions: np.ndarray
    indices: np.ndarray
    clusters: np.ndarray

    @property
    def count(self) -> int:
        """The number of items, n."""
        return len(self.indices)

    def take(self, rows: Sequence[int] | np.ndarray) -> "EncodedItems":
        """Return the items at `rows`."""
        rows = np.asarray(rows)
        return self._replace(
            images=self.images[rows],
            captions=self.captions[rows],
            indices=self.indices[rows],
            clusters=self.clusters[rows],
        )

    def select_candidates(self, candidates: np.ndarray) -> "EncodedItems":
        """Return the same items with fewer candidates.

        Args:
            candidates: (n, k) int, which of the images, or where there is one image of the
                captions, each item keeps.
        """
        if self.images.shape[1] > 1:
            return self._replace(images=np.take_along_axis(self.images, candidates, axis=1))
        return self._replace(captions=np.take_along_axis(self.captions, candidates, axis=1))


def encode(
    encoders: Encoders,
    examples: Examples,
    indices: Sequence[int] | np.ndarray,
    *,
    split_over_hosts: bool = False,
    work: Work = UNSEEN,
) -> EncodedItems:
    """Read and encode the items of a split at `indices`, each different image and caption once.

    With `split_over_hosts`, all hosts ask for the same items, and each encodes its part of them.
    `work` is this, an image or caption a unit of its stage.
    """
    keys = [key for index in indices for key in examples.images[index]]
    captions = [caption for index in indices for caption in examples.captions[index]]
    encode_images = partial(encoders.images, examples, split_over_hosts=split_over_hosts, work=work)
    encode_captions = partial(encoders.captions, split_over_hosts=split_over_hosts, work=work)
    latents, image_rows = _encode_distinct(keys, encode_images)
    texts, caption_rows = _encode_distinct(captions, encode_captions)
    return EncodedItems(
        latents,
        texts,
        image_rows.reshape(len(indices), -1),
        caption_rows.reshape(len(indices), -1),
        np.asarray(indices),
        cluster_ids([examples.clusters[index] for index in indices]),
    )


def distinct_rows(keys: Sequence[Hashable]) -> tuple[list, np.ndarray]:
    """Return the distinct keys as they first appear, and which of them each key is, (k,) int."""
    rows = {key: row for row, key in enumerate(dict.fromkeys(keys))}
    return list(rows), np.array([rows[key] for key in keys], np.int64)


def _encode_distinct(
    keys: Sequence[Hashable], compute: Callable[[list], Tree]
) -> tuple[Tree, np.ndarray]:
    """Return the encodings of the distinct keys, and which row of them each key has."""
    distinct, rows = distinct_rows(keys)
    parts = (
        compute([distinct[i] for i in piece])
        for piece in even_ranges(len(distinct), ENCODED_TOGETHER)
    )
    return stacked(parts, len(distinct)), rows


def item_outputs(
    model: Model,
    items: EncodedItems,
    timesteps: np.ndarray,
    seeds: Sequence[int] | np.ndarray,
    *,
    prompts: Mapping[str, Any] | None = None,
    outputs: OutputSpec | None = None,
    work: Work = UNSEEN,
) -> Terms:
    """Return the UNet outputs of all candidates at every timestep under the noise of every seed.

    The noise depends on (seed, index of the item, timestep) alone. The empty caption's outputs are
    the frozen model's under prompts, too: see `batching.pair_terms`.

    Args:
        model: frozen.
        items: n items of P images and J captions.
        timesteps: (T,) int.
        seeds: of K noises.
        prompts: a prompts pytree.
        outputs: to compute; all by default.
        work: that these outputs are.

    Returns:
        Outputs with I = n * P, the images of an item side by side, C = J, and K * T timesteps, the
        timesteps of a seed side by side.
    """
    seed_of, timestep_of = np.repeat(seeds, len(timesteps)), np.tile(timesteps, len(seeds))
    keys = NoiseKeys(seed_of, np.repeat(items.indices, items.images.shape[1]))
    pairs = Pairs(items.latents, items.images, items.texts, items.captions, keys, timestep_of)
    return pair_terms(model, pairs, outputs, prompts=prompts, work=work)


def gather_outputs(outputs: Terms, images: int, count: int) -> Terms:
    """Return, on all hosts, the outputs of all items, of which each host has its part.

    Args:
        outputs: of this host's `local_range(count)` of the items.
        images: P, of each item.
        count: n, of all hosts' items.
    """

    def by_item(x: jax.Array) -> jax.Array:
        return x.reshape(-1, images, *x.shape[1:])

    whole = processes.gather(jax.tree.map(by_item, outputs), count)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), whole)
