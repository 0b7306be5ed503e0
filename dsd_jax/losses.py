"""Losses over the candidates of an item, the matching one first; float32."""

import jax
import jax.numpy as jnp

LOSSES = ("cross_entropy", "hinge")


def hinge(scores: jax.Array, margin: float = 0.1) -> jax.Array:
    """The authors' max(0, max_j s_j - s_0 + margin) of each item: (B, J) -> (B,)."""
    return jnp.maximum(0.0, scores[:, 1:].max(axis=1) - scores[:, 0] + margin)


def cross_entropy(scores: jax.Array) -> jax.Array:
    """-log softmax(scores) at the matching candidate: (B, J) -> (B,)."""
    return jax.nn.logsumexp(scores, axis=1) - scores[:, 0]
