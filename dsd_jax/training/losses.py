"""Losses over an item's candidates, the matching one first: hinge, cross-entropy, contrastive."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_TEMPERATURES = np.geomspace(0.1, 4.0, 30)  # times the root mean square of the margins


def hinge(scores: Float[Array, "B J"], margin: float = 0.1) -> Float[Array, " B"]:
    """Return the authors' hinge loss, max(0, max_j s_j - s_0 + margin)."""
    return jnp.maximum(0.0, scores[:, 1:].max(axis=1) - scores[:, 0] + margin)


def cross_entropy(scores: Float[Array, "B J"]) -> Float[Array, " B"]:
    """Return -log softmax(scores) of the matching candidate."""
    return jax.nn.logsumexp(scores, axis=1) - scores[:, 0]


def contrastive(
    images: Float[Array, "B E"], texts: Float[Array, "B E"], scale: Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Return CLIP's symmetric cross-entropy of B pairs (Radford et al. 2021, figure 3).

    Args:
        images: unit vectors.
        texts: unit vectors of their captions.
        scale: factor from cosines to logits.

    Returns:
        The mean loss over images and captions; the fraction of them that are closest to their own.
    """
    logits = scale * images @ texts.T
    labels = jnp.arange(len(logits))
    both = jnp.stack([logits, logits.T])
    own = jnp.diagonal(logits)
    loss = jnp.mean(jax.nn.logsumexp(both, axis=-1) - own)
    return loss, jnp.mean(jnp.argmax(both, axis=-1) == labels)


def fit_temperature(margins: Float[np.ndarray, "n others"]) -> float:
    """Return the temperature at which the cross-entropy of margins is least.

    Args:
        margins: scores of the other candidates less the matching one's.
    """
    margins = np.asarray(margins, np.float64)
    scale = np.sqrt(np.mean(np.square(margins.max(axis=1))) + 1e-24)
    temperatures = scale * _TEMPERATURES
    losses = [np.mean(_margin_loss(margins / temperature)) for temperature in temperatures]
    return float(temperatures[int(np.argmin(losses))])


def _margin_loss(margins: Float[np.ndarray, "n others"]) -> Float[np.ndarray, " n"]:
    """Return log(1 + sum exp(margin)) of each row, the cross-entropy."""
    return np.logaddexp.reduce(
        np.concatenate([np.zeros((len(margins), 1)), margins], axis=1), axis=1
    )
