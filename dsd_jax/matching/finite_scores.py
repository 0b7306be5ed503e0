"""Scores that are no numbers: one sentence instead of a table of them."""

import numpy as np

from dsd_jax.errors import UserError


def check_finite(scores: np.ndarray, weights: str) -> np.ndarray:
    """Return scores of any shape as they are.

    Args:
        scores: float array.
        weights: name of the model that gave them.

    Raises:
        UserError: some are NaN or infinite.
    """
    broken = int(np.size(scores) - np.isfinite(scores).sum())
    if broken:
        raise UserError(
            f"{broken} of {np.size(scores)} scores by {weights} are not finite; the weights are "
            "damaged or too large for their dtype: fetch the model again, or load it as float32."
        )
    return scores
