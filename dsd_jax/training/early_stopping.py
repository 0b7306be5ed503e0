"""What the held-out part of the few shots decides: when learning stops, and whether it is kept.

What is learned is kept if it gains more than its standard error on the held-out items. That takes
items enough: the standard error of n is itself known to 1 / sqrt(2 (n - 1)), and all n gain by
chance once in 2^n times. With 3 that is one half and once in 8, with `LEAST`, 5, a third and once
in 32. Fewer decide nothing, so nothing is learned then.

A course of learning is any NamedTuple with `held_out`, (checks + 1, items) float32, the losses
zero-shot and at every check, NaN ahead; and with `best` and `best_check`, what was learned at the
check with the lowest mean, and its number.
"""

import warnings
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distributed import processes
from dsd_jax.statistics.standard_errors import cluster_ids

Course = TypeVar("Course")
LEAST = 5  # independent held-out items that can tell a gain of one standard error


def first_losses(zero_shot: np.ndarray, steps: int, check_every: int) -> np.ndarray:
    """`held_out` before the first step, from the losses of the frozen model: (items,)."""
    history = np.full((1 - (-steps // check_every), len(zero_shot)), np.nan, np.float32)
    history[0] = zero_shot
    return history


def look(
    course: Course, step: int, losses: np.ndarray, learned: Any, recipe: Any
) -> tuple[Course, bool, float]:
    """The course after a check with `losses` (items,) of what is `learned`; whether the recipe's
    patience has come to its end; the mean loss.
    """
    number = -(-step // recipe.check_every)
    course.held_out[number] = losses
    mean = float(course.held_out[number].mean())
    if mean < course.held_out[int(course.best_check)].mean():
        best = jax.tree.map(jnp.copy, learned)
        course = course._replace(best=best, best_check=np.asarray(number))
    return course, number - int(course.best_check) >= recipe.patience, mean


def can_tell(clusters: Sequence[Any] | np.ndarray) -> bool:
    """Return whether held-out items of these clusters are enough to tell a gain."""
    return len(np.unique(clusters)) >= LEAST


def tell_too_few(name: str, shots: int) -> None:
    """Warn that so few shots are not learned from, on the main host."""
    if processes.is_main():
        warnings.warn(
            f"{name}: {shots} shots hold out fewer than {LEAST} independent items, which can't "
            "tell whether anything was gained, so nothing is learned from them and the row is "
            f"zero-shot; {2 * LEAST} or more shots of different images would do.",
            stacklevel=3,
        )


def is_gain(gains: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> bool:
    """Return whether gains (n,) exceed zero on average by their standard error.

    Items of one cluster are not independent: their gains count together. Fewer than `LEAST`
    clusters tell nothing, so they are no gain.
    """
    if not can_tell(clusters):
        return False
    mean = gains.mean()
    sums = np.bincount(cluster_ids(list(clusters)), gains - mean)  # of each cluster
    error = np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / len(gains)
    return bool(mean > error)


def verdict(
    course: Any, recipe: Any, clusters: Sequence[Any] | np.ndarray
) -> tuple[dict[int, float], int]:
    """Return {step: mean held-out loss}, and the step whose weights are kept.

    That is 0, the frozen model, unless the best gains more than its standard error. `clusters` are
    those of the held-out items.
    """
    checks = {
        min(number * recipe.check_every, recipe.steps): float(value)
        for number, value in enumerate(course.held_out.mean(axis=1))
        if not np.isnan(value)
    }
    best = int(course.best_check)
    gains = course.held_out[0] - course.held_out[best]
    return checks, list(checks)[best] if is_gain(gains, clusters) else 0


def split(
    clusters: Sequence[Any] | np.ndarray, part: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the items to learn from, and of those held out.

    A part of the items is held out: of at least `LEAST` clusters as far as half of them are that
    many, and at most half. Clusters stay whole, lest what is learned from is held out, too.
    """
    number = cluster_ids(list(clusters))
    sizes = np.bincount(number)
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(sizes)[:-1])
    count, half = len(number), len(number) // 2
    wanted = int(np.clip(round(part * count), min(LEAST, half), half))
    least = min(LEAST, len(members) // 2)
    learn: list[int] = []
    held: list[int] = []
    clusters_held = 0
    for one in np.random.default_rng([seed, 6]).permutation(len(members)):
        fits = len(held) + sizes[one] <= half
        if fits and (len(held) < wanted or clusters_held < least):
            held += members[one].tolist()
            clusters_held += 1
        else:
            learn += members[one].tolist()
    return np.array(learn, np.int64), np.array(held, np.int64)
