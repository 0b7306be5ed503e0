"""Pixels as a CLIP takes them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Normaliser(NamedTuple):
    """What is taken off each colour channel, and what the rest is divided by, in [0, 1] pixels.

    The defaults are OpenAI's, which nearly every CLIP has kept.
    """

    mean: tuple[float, ...] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, ...] = (0.26862954, 0.26130258, 0.27577711)

    def __call__(self, pixels: jax.Array) -> jax.Array:
        """uint8 (I, S, S, 3) -> float32 of the same shape."""
        mean, std = jnp.asarray(self.mean), jnp.asarray(self.std)
        return (pixels.astype(jnp.float32) / 255 - mean) / std
