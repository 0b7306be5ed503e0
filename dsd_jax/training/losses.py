"""Losses over the candidates of an item, the matching one first; float32."""

import jax
import jax.numpy as jnp


def hinge(scores: jax.Array, margin: float = 0.1) -> jax.Array:
    """The authors' max(0, max_j s_j - s_0 + margin) of each item: (B, J) -> (B,)."""
    return jnp.maximum(0.0, scores[:, 1:].max(axis=1) - scores[:, 0] + margin)


def cross_entropy(scores: jax.Array) -> jax.Array:
    """-log softmax(scores) at the matching candidate: (B, J) -> (B,)."""
    return jax.nn.logsumexp(scores, axis=1) - scores[:, 0]


def contrastive(
    images: jax.Array, texts: jax.Array, scale: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """CLIP's symmetric cross-entropy between B pairs (Radford et al. 2021, figure 3).

    Args:
        images: unit vectors (B, E).
        texts: unit vectors (B, E) of their captions.
        scale: of the cosines.

    Returns:
        The mean over pictures and captions; the part of them that are closest to their own.
    """
    logits = scale * images @ texts.T
    labels = jnp.arange(len(logits))
    both = jnp.stack([logits, logits.T])
    own = jnp.diagonal(logits)
    loss = jnp.mean(jax.nn.logsumexp(both, axis=-1) - own)
    return loss, jnp.mean(jnp.argmax(both, axis=-1) == labels)
