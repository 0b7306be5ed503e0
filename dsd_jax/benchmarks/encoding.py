"""A benchmark's pictures and captions as the frozen encoders see them, each different one once."""

from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from dsd_jax.benchmarks.encoding_cache import Cache
from dsd_jax.data.examples import Examples
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.text_states import Texts
from dsd_jax.distributed import processes
from dsd_jax.io.cache_folder import expand

BUDGET = 2**30  # bytes of encoded pictures, and of captions, that are kept for later items
READ_TOGETHER = 64  # pictures that are in memory at a time

# From some keys to a tuple of arrays with a row each.
Compute = Callable[[list], tuple[np.ndarray, ...]]


class Encoders:
    """The encoders of a model; what they said is remembered, in memory up to `BUDGET`.

    Args:
        model: whose encoders.
        cache: folder of what earlier runs have encoded, and this one will have; "" for none.
    """

    def __init__(self, model: Model, cache: str | Path = ""):
        """Computes the weights' digests where there is a cache."""
        self.model = model
        self._pictures, self._texts = Memory(), Memory()
        self._cached = {part: _cache(cache, part, model) for part in ("vae", "text")}

    def pictures(
        self, examples: Examples, keys: Sequence[Hashable], together: bool = False
    ) -> tuple[np.ndarray, np.ndarray]:
        """Latents (U, h, w, channels) of the different ones of `keys`, and which of them each is.

        With `together`, hosts that all ask for the same keys each encode a part of them.
        """
        named = [(examples.read, key) for key in keys]  # a key means a picture of its own split
        (latents,), rows = self._pictures.rows(named, self._encode_named(examples), together)
        return latents.reshape(-1, *self.model.latent_shape), rows

    def captions(self, captions: Sequence[str], together: bool = False) -> tuple[Texts, np.ndarray]:
        """The same of captions: Texts of V of them, and which of them each is."""
        arrays, rows = self._texts.rows(captions, self._read, together)
        return Texts(*arrays), rows

    def _encode_named(self, examples: Examples) -> Compute:
        return lambda named: self._encode(examples, [key for _, key in named])

    def _encode(self, examples: Examples, keys: list) -> tuple[np.ndarray]:
        found = []
        for start in range(0, len(keys), READ_TOGETHER):
            some = keys[start : start + READ_TOGETHER]
            pixels = examples.images(some, self.model.image_size)
            contents = [picture.tobytes() for picture in pixels]
            found.append(
                _from(
                    self._cached["vae"], contents, lambda rows, of=pixels: self._latents(of[rows])
                )
            )
        return (np.concatenate(found) if found else np.empty((0, *self.model.latent_shape)),)

    def _latents(self, pixels: np.ndarray) -> np.ndarray:
        return np.asarray(self.model.latents(pixels))

    def _read(self, captions: list[str]) -> tuple[np.ndarray, np.ndarray]:
        length, width = self.model.tokenizer.model_max_length, self.model.unet.cross_attention_dim

        def flat(rows: Sequence[int]) -> np.ndarray:
            texts = self.model.encode_captions([captions[i] for i in rows])
            states = np.asarray(texts.states).reshape(len(rows), -1)
            return np.concatenate([states, np.asarray(texts.pooled)], axis=1)

        both = _from(self._cached["text"], [caption.encode() for caption in captions], flat)
        states, pooled = np.split(both, [length * width], axis=1)
        return states.reshape(-1, length, width), pooled


class Memory:
    """Rows by key, the oldest forgotten beyond `BUDGET` bytes."""

    def __init__(self):
        """Empty."""
        self._rows: dict[Hashable, tuple[np.ndarray, ...]] = {}

    def rows(
        self, keys: Sequence[Hashable], compute: Compute, together: bool
    ) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
        """Arrays with a row per different key, in the order of their first appearance; which of
        them each key has, as an int array. `together`: as for `Encoders.pictures`.
        """
        different = {key: i for i, key in enumerate(dict.fromkeys(keys))}
        rows = np.array([different[key] for key in keys], np.int64)
        if together:  # remembered by none: hosts may remember different ones
            mine = [list(different)[i] for i in processes.local_range(len(different))]
            return processes.gather(compute(mine), len(different)), rows
        missing = [key for key in different if key not in self._rows]
        if missing:
            self._rows.update(zip(missing, zip(*compute(missing), strict=True), strict=True))
        found = [self._rows[key] for key in different]
        self._forget(different)
        return tuple(np.stack(column) for column in zip(*found, strict=True)), rows

    def _forget(self, needed: dict[Hashable, int]) -> None:
        size = sum(array.nbytes for row in self._rows.values() for array in row)
        for key in [key for key in self._rows if key not in needed]:
            if size <= BUDGET:
                return
            size -= sum(array.nbytes for array in self._rows.pop(key))


def _from(cache: Cache | None, contents: list[bytes], compute: Callable) -> np.ndarray:
    return cache.rows(contents, compute) if cache else compute(list(range(len(contents))))


def _cache(folder: str | Path, part: str, model: Model) -> Cache | None:
    if not folder:
        return None
    weights, rest = model.image_identity() if part == "vae" else model.text_identity()
    return Cache(expand(folder) / part, weights, rest)
