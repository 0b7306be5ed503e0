"""The frozen encoders of a model, applied to a benchmark's images and captions."""

from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dsd_jax.benchmarks.encoding_cache import EncodingCache, MemoryCache, Rows
from dsd_jax.data.examples import Examples
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.distributed import processes
from dsd_jax.io.local_files import expand
from dsd_jax.io.progress import UNSEEN, Work

READ_TOGETHER = 64  # images that are in memory at a time


class Encoders:
    """The image and text encoders of a model, whose outputs are kept in memory and on disk.

    Args:
        model: the model whose encoders are used.
        cache: the folder of the disk cache, which runs may share; "" for none.
    """

    def __init__(self, model: Model, cache: str | Path = ""):
        """Open the disk cache, for which the digests of the encoders' params are computed."""
        self.model = model
        self._images, self._captions = MemoryCache(), MemoryCache()
        self._image_files = self._caption_files = None
        if cache:
            folder = expand(cache)
            self._image_files = EncodingCache(folder / "vae", *model.image_identity())
            self._caption_files = EncodingCache(folder / "text", *model.text_identity())

    def images(
        self,
        examples: Examples,
        keys: Sequence[Hashable],
        *,
        split_over_hosts: bool = False,
        work: Work = UNSEEN,
    ) -> np.ndarray:
        """Return the latents (k, h, w, channels) of k images of a split, in the order of `keys`.

        With `split_over_hosts`, all hosts ask for the same keys, and each encodes its part of them.
        An image is a unit of `work`'s stage.
        """

        def encode(named: list) -> Rows:
            return self._encode_images(examples, [key for _, key in named], work)

        named = [(examples.read, key) for key in keys]  # a key means an image of its own split
        (latents,) = _rows(self._images, named, encode, split_over_hosts)
        return latents.reshape(-1, *self.model.latent_shape)

    def captions(
        self, captions: Sequence[str], *, split_over_hosts: bool = False, work: Work = UNSEEN
    ) -> EncodedCaptions:
        """Return the text states of captions, in their order; hosts share them as for `images`."""
        encode = partial(self._encode_captions, work)
        return EncodedCaptions(*_rows(self._captions, captions, encode, split_over_hosts))

    def _encode_images(self, examples: Examples, keys: list, work: Work) -> Rows:
        parts = []
        for start in range(0, len(keys), READ_TOGETHER):
            together = keys[start : start + READ_TOGETHER]
            pixels = examples.read_images(together, self.model.image_size)
            contents = [image.tobytes() for image in pixels]
            with work.waiting_for("the image encoder"):
                parts.append(_cached(self._image_files, contents, partial(self._latents, pixels)))
            work.advance(len(together))
        return (np.concatenate(parts),)

    def _latents(self, pixels: np.ndarray, rows: list[int]) -> np.ndarray:
        return np.asarray(self.model.latents(list(pixels[rows])))

    def _encode_captions(self, work: Work, captions: list[str]) -> Rows:
        length, width = self.model.tokenizer.model_max_length, self.model.unet.cross_attention_dim

        def compute(rows: list[int]) -> np.ndarray:
            texts = self.model.encode_captions([captions[i] for i in rows])
            states = np.asarray(texts.states).reshape(len(rows), -1)
            return np.concatenate([states, np.asarray(texts.pooled)], axis=1)

        with work.waiting_for("the text encoder"):
            both = _cached(self._caption_files, [caption.encode() for caption in captions], compute)
        work.advance(len(captions))
        states, pooled = np.split(both, [length * width], axis=1)
        return states.reshape(-1, length, width), pooled


def _rows(
    memory: MemoryCache,
    keys: Sequence[Hashable],
    compute: Callable[[list], Rows],
    split_over_hosts: bool,
) -> Rows:
    if not split_over_hosts:
        return memory.rows(keys, compute)
    # Not kept in memory: hosts may have different rows there, but must compute the same ones.
    part = [keys[i] for i in processes.local_range(len(keys))]
    return processes.gather(compute(part), len(keys))


def _cached(
    files: EncodingCache | None,
    contents: Sequence[bytes],
    compute: Callable[[list[int]], np.ndarray],
) -> np.ndarray:
    return files.rows(contents, compute) if files else compute(list(range(len(contents))))
