"""Metrics that say whether an item's scores are right, which depend on the shape of the item.

One image and several captions, or the other way round: accuracy, or R@1 and R@5 where there are
more than five candidates. Two images and two captions: Winoground's text, image and group scores
(arXiv 2204.03162). A tie with m others counts 1 / (m + 1), as if it were broken by chance.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

COMPAT_BATCH = 16  # of the authors' evaluation


def outcomes(scores: Float[np.ndarray, "n P J"]) -> dict[str, Float[np.ndarray, " n"]]:
    """Return {metric: outcome of each item, in [0, 1]}; 1 is right.

    Args:
        scores: of each image with each caption; the matching candidate is the first, or of two
            images and two captions caption i matches image i.

    Raises:
        FloatingPointError: a score is not a number, so it can't be compared.
        ValueError: there are several images and captions, and not two of each.
    """
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    count, images, captions = scores.shape
    if min(images, captions) == 1:
        flat = scores.reshape(count, -1)
        if flat.shape[1] <= 5:
            return {"accuracy": among_best(flat, 1)}
        return {"R@1": among_best(flat, 1), "R@5": among_best(flat, 5)}
    if (images, captions) != (2, 2):
        raise ValueError(f"items of {images} images and {captions} captions have no metric.")
    text = better(scores[:, 0, 0], scores[:, 0, 1]) * better(scores[:, 1, 1], scores[:, 1, 0])
    image = better(scores[:, 0, 0], scores[:, 1, 0]) * better(scores[:, 1, 1], scores[:, 0, 1])
    return {"text": text, "image": image, "group": text * image}


def chances(images: int, captions: int) -> dict[str, float]:
    """Return {metric: mean outcome of random scores} of items of P images and J captions."""
    if min(images, captions) > 1:
        return {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
    candidates = images * captions
    if candidates <= 5:
        return {"accuracy": 1 / candidates}
    return {"R@1": 1 / candidates, "R@5": 5 / candidates}


def among_best(scores: Float[np.ndarray, "n candidates"], count: int) -> Float[np.ndarray, " n"]:
    """Return the chance that the first of the candidates is among the `count` highest."""
    first, others = scores[:, :1], scores[:, 1:]
    higher, equal = (others > first).sum(1), (others == first).sum(1)
    return np.clip((count - higher) / (1 + equal), 0.0, 1.0)


def better(
    scores: Float[np.ndarray, " n"], others: Float[np.ndarray, " n"]
) -> Float[np.ndarray, " n"]:
    """Return 1 where the first scores are higher, 0.5 where both are equal, otherwise 0."""
    return (scores > others) + 0.5 * (scores == others)


def compat(
    attention: Float[np.ndarray, "n P J"],
    bias: Float[np.ndarray, "n P J"] | None,
    kinds: Sequence[str],
) -> Float[np.ndarray, "n P J"]:
    """Return scores as the authors' evaluation has them.

    Their attention score is one number for a whole batch: a mean over 16 items of one kind in their
    order (METHOD: `unet`, `AttnProcessor`, batch size 16), so that the batch, not the item, is
    right or wrong. The bias is each item's own.
    """
    batches = compat_batches(kinds)
    averaged = np.empty_like(attention)
    for batch in dict.fromkeys(batches):
        rows = [i for i, key in enumerate(batches) if key == batch]
        averaged[rows] = attention[rows].mean(axis=0)
    return averaged if bias is None else averaged + bias


def compat_batches(kinds: Sequence[str]) -> list[tuple[str, int]]:
    """Return the batch of the authors' evaluation that each item is in: its kind and a number."""
    counts: dict[str, int] = {}
    batches = []
    for kind in kinds:
        batches.append((kind, counts.get(kind, 0) // COMPAT_BATCH))
        counts[kind] = counts.get(kind, 0) + 1
    return batches
