"""What the held-out part of the few shots decides: when learning stops, and whether it is kept.

A course of learning is any NamedTuple with `held_out`, (checks + 1, items) float32, the losses
zero-shot and at every check, NaN ahead; and with `best` and `best_check`, what was learned at the
check with the lowest mean, and its number.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.weighting import is_gain

Course = TypeVar("Course")


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


def verdict(course: Any, recipe: Any) -> tuple[dict[int, float], int]:
    """{step: mean held-out loss}, and the step whose weights are kept: 0, the frozen model, unless
    the best gains more than its standard error.
    """
    checks = {
        min(number * recipe.check_every, recipe.steps): float(value)
        for number, value in enumerate(course.held_out.mean(axis=1))
        if not np.isnan(value)
    }
    best = int(course.best_check)
    gains = course.held_out[0] - course.held_out[best]
    return checks, list(checks)[best] if is_gain(gains) else 0
