"""Endless random scenes for pre-training: no unseen artist, no held-out concept pair."""

from typing import NamedTuple

import numpy as np

from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import UNSEEN_STYLE, Sprites, load_sprites


class Stream(NamedTuple):
    """Scenes as a function of (seed, number) alone, so that a resumed run sees the same ones."""

    sprites: Sprites
    pairs: list[tuple[int, int]]
    styles: list[int]

    def batch(self, key: list[int], count: int) -> tuple[np.ndarray, list[scenes.Scene]]:
        """`count` pictures, uint8 (count, 64, 64, 3), and their scenes, drawn from `key`."""
        rng = np.random.default_rng(key)
        drawn = [scenes.sample_scene(rng, self.pairs, self.styles) for _ in range(count)]
        return np.stack([scenes.draw(scene, self.sprites) for scene in drawn]), drawn


def training_stream() -> Stream:
    """Scenes by the seen artists, of concept pairs that pre-training may show."""
    sprites = load_sprites()
    styles = [i for i, style in enumerate(sprites.styles) if style != UNSEEN_STYLE]
    return Stream(sprites, scenes.allowed_pairs(len(sprites.concepts)), styles)


def unseen_stream() -> Stream:
    """The same scenes drawn by the unseen artist: to look at, never to train on."""
    stream = training_stream()
    return stream._replace(styles=[stream.sprites.styles.index(UNSEEN_STYLE)])


def to_pixels(images: np.ndarray) -> np.ndarray:
    """uint8 -> float32 in [-1, 1], as the VAE takes them."""
    return images.astype(np.float32) / 127.5 - 1.0
