"""What a model's text encoders say of captions."""

from typing import NamedTuple

import jax
import numpy as np


class Texts(NamedTuple):
    """Encoded captions; the leading axes are the caller's.

    states: (..., L, K) float32, of every token: what cross-attention reads.
    pooled: (..., A) float32, of the whole caption, which SDXL adds to its time embedding; A is 0 in
        families that have no such thing.
    """

    states: jax.Array | np.ndarray
    pooled: jax.Array | np.ndarray

    def map(self, function) -> "Texts":
        """`function` of both arrays."""
        return Texts(function(self.states), function(self.pooled))


def without_pooled(states: jax.Array | np.ndarray) -> Texts:
    """Texts of a family that has states alone."""
    return Texts(states, np.zeros((*states.shape[:-2], 0), np.float32))
