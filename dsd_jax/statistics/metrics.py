"""Whether an item's scores are right, by the metrics that its shape has.

Of one picture and several captions, or the other way round: accuracy, or R@1 and R@5 where there
are more than five candidates. Of two pictures and two captions: Winoground's text, image and group
scores (arXiv 2204.03162). A tie with m others counts 1 / (m + 1), as if it were broken by chance.
"""

from collections.abc import Sequence

import numpy as np

COMPAT_BATCH = 16  # of the authors' evaluation


def outcomes(scores: np.ndarray) -> dict[str, np.ndarray]:
    """{metric: (n,) in [0, 1]} from (n, P, J), where the matching candidate is the first, or
    caption i matches picture i.

    Raises:
        FloatingPointError: a score is not a number, so it can't be compared.
        ValueError: there are several pictures and captions, and not two of each.
    """
    if not np.isfinite(scores).all():
        raise FloatingPointError(f"{(~np.isfinite(scores)).sum()} scores are not finite.")
    count, pictures, captions = scores.shape
    if min(pictures, captions) == 1:
        flat = scores.reshape(count, -1)
        if flat.shape[1] <= 5:
            return {"accuracy": among_best(flat, 1)}
        return {"R@1": among_best(flat, 1), "R@5": among_best(flat, 5)}
    if (pictures, captions) != (2, 2):
        raise ValueError(f"items of {pictures} pictures and {captions} captions have no metric.")
    text = better(scores[:, 0, 0], scores[:, 0, 1]) * better(scores[:, 1, 1], scores[:, 1, 0])
    image = better(scores[:, 0, 0], scores[:, 1, 0]) * better(scores[:, 1, 1], scores[:, 0, 1])
    return {"text": text, "image": image, "group": text * image}


def chances(pictures: int, captions: int) -> dict[str, float]:
    """What scores without meaning get."""
    if min(pictures, captions) > 1:
        return {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
    candidates = pictures * captions
    if candidates <= 5:
        return {"accuracy": 1 / candidates}
    return {"R@1": 1 / candidates, "R@5": 5 / candidates}


def among_best(scores: np.ndarray, count: int) -> np.ndarray:
    """The chance that the first of (n, K) is among the `count` highest: (n,)."""
    first, others = scores[:, :1], scores[:, 1:]
    higher, equal = (others > first).sum(1), (others == first).sum(1)
    return np.clip((count - higher) / (1 + equal), 0.0, 1.0)


def better(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """1 where `one` is higher, 0.5 where they are equal."""
    return (one > other) + 0.5 * (one == other)


def compat(attention: np.ndarray, bias: np.ndarray | None, kinds: Sequence[str]) -> np.ndarray:
    """(n, P, J) scores as the authors' evaluation has them.

    Their attention score is one number for a whole batch: a mean over 16 items of one kind in their
    order (METHOD: `unet`, `AttnProcessor`, batch size 16), so that the batch, not the item, is
    right or wrong. The bias is each item's own.
    """
    batches = compat_batches(kinds)
    averaged = np.empty_like(attention)
    for batch in dict.fromkeys(batches):
        rows = [i for i, one in enumerate(batches) if one == batch]
        averaged[rows] = attention[rows].mean(axis=0)
    return averaged if bias is None else averaged + bias


def compat_batches(kinds: Sequence[str]) -> list[tuple[str, int]]:
    """The batch of the authors' evaluation that each item is in: its kind and a number."""
    seen: dict[str, int] = {}
    batches = []
    for kind in kinds:
        batches.append((kind, seen.get(kind, 0) // COMPAT_BATCH))
        seen[kind] = seen.get(kind, 0) + 1
    return batches
