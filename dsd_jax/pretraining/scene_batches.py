"""Random scenes for pre-training, without the unseen artist and the held-out concept pairs."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.config.pretrain_config import POOL
from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import UNSEEN_STYLE, Sprites, load_sprites


class SceneStream(NamedTuple):
    """An endless source of scenes of some concept pairs and styles.

    A batch depends on its key alone, so that a resumed run sees the same ones.
    """

    sprites: Sprites
    pairs: list[tuple[int, int]]
    styles: list[int]

    def batch(self, key: Sequence[int], count: int) -> tuple[np.ndarray, list[scenes.Scene]]:
        """Draw `count` images, uint8 (count, 64, 64, 3), and their scenes."""
        rng = np.random.default_rng(key)
        batch = [scenes.sample_scene(rng, self.pairs, self.styles) for _ in range(count)]
        return np.stack([scenes.draw(scene, self.sprites) for scene in batch]), batch


class ScenePool:
    """A stream's images, encoded once per pool of them and used in several passes.

    The images of a step, and their order in each pass, depend on seed and step alone.
    """

    def __init__(
        self,
        stream: SceneStream,
        encode: Callable[[np.ndarray], np.ndarray] | None = None,
        *,
        seed: int,
        size: int,
        passes: int,
    ):
        """Draw nothing yet.

        Args:
            stream: the source of images.
            encode: from uint8 images (I, 64, 64, 3) to their latents; by default images stay.
            seed: of images and orders.
            size: images of a pool, a multiple of `POOL`.
            passes: times each image is used.
        """
        self.seed, self.concepts = seed, stream.sprites.concepts
        self._stream, self._encode = stream, encode or (lambda images: images)
        self._size, self._passes = size, passes
        self._number, self._pool = -1, (np.empty(0), [])

    def batch(self, step: int, count: int) -> tuple[np.ndarray, list[scenes.Scene]]:
        """Return the latents (count, ...) and the scenes of a step."""
        pass_number, position = divmod(step, self._size // count)
        number = pass_number // self._passes
        if number != self._number:
            self._pool, self._number = self._draw(number), number
        latents, drawn = self._pool
        order = np.random.default_rng([self.seed, 4, pass_number]).permutation(self._size)
        rows = order[position * count : (position + 1) * count]
        return latents[rows], [drawn[row] for row in rows]

    def _draw(self, number: int) -> tuple[np.ndarray, list[scenes.Scene]]:
        latents, drawn = [], []
        for part in range(self._size // POOL):
            images, batch = self._stream.batch([self.seed, 3, number, part], POOL)
            latents.append(np.asarray(self._encode(images)))
            drawn += batch
        return np.concatenate(latents), drawn


def training_stream() -> SceneStream:
    """Return scenes by the seen artists, of concept pairs that pre-training may show."""
    sprites = load_sprites()
    styles = [i for i, style in enumerate(sprites.styles) if style != UNSEEN_STYLE]
    return SceneStream(sprites, scenes.allowed_pairs(len(sprites.concepts)), styles)


def to_pixels(images: np.ndarray) -> np.ndarray:
    """Convert uint8 to float32 in [-1, 1], as the VAE takes them."""
    return images.astype(np.float32) / 127.5 - 1.0
