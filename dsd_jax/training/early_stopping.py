"""Early stopping and the veto: held-out losses say when to stop, and whether anything is kept.

Trained params are kept if their mean gain on the held-out items exceeds its standard error. That
takes enough items: the standard error of n is itself known to 1 / sqrt(2 (n - 1)), and all n gain
by chance once in 2^n times. With 3 that is one half and once in 8, with `LEAST`, 5, a third and
once in 32. Fewer decide nothing, so nothing is trained then.
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distributed import processes
from dsd_jax.statistics.standard_errors import cluster_ids
from dsd_jax.training.held_out_verdict import HeldOutVerdict
from dsd_jax.training.loop import CheckResult

LEAST = 5  # independent held-out items that can tell a gain of one standard error


class CheckSchedule(Protocol):
    """The fields of a recipe that say when held-out items are checked.

    Attributes:
        steps: of the optimizer, at most.
        check_every: steps between checks.
        patience: checks without improvement before stopping.
    """

    steps: int
    check_every: int
    patience: int


class TrainState(NamedTuple):
    """The state that a resumed few-shot run needs.

    Attributes:
        params: trained.
        opt_state: of the optimizer.
        best: params at the check with the lowest mean loss.
        best_check: () int, the index of that check; 0 is zero-shot.
        held_out: (checks + 1, n) float32, losses of n items zero-shot and at every check; NaN for
            checks not reached yet.
    """

    params: Any
    opt_state: Any
    best: Any
    best_check: np.ndarray
    held_out: np.ndarray


def start(
    params: Any, opt_state: Any, zero_shot_losses: np.ndarray, schedule: CheckSchedule
) -> TrainState:
    """Return the state before the first step, from the frozen model's losses (n,)."""
    checks = -(-schedule.steps // schedule.check_every)
    held_out = np.full((1 + checks, len(zero_shot_losses)), np.nan, np.float32)
    held_out[0] = zero_shot_losses
    best = jax.tree.map(jnp.copy, params)
    return TrainState(params, opt_state, best, np.asarray(0), held_out)


def update(
    state: TrainState, step: int, losses: np.ndarray, schedule: CheckSchedule
) -> CheckResult:
    """Record a check with `losses` (n,) of the state's params; stop if patience has ended."""
    check = -(-step // schedule.check_every)
    state.held_out[check] = losses
    mean = float(state.held_out[check].mean())
    if mean < state.held_out[int(state.best_check)].mean():
        best = jax.tree.map(jnp.copy, state.params)
        state = state._replace(best=best, best_check=np.asarray(check))
    return CheckResult(state, check - int(state.best_check) >= schedule.patience, mean)


def can_tell(clusters: Sequence[Any] | np.ndarray) -> bool:
    """Return whether held-out items of these clusters are enough to tell a gain."""
    return len(np.unique(clusters)) >= LEAST


def warn_too_few(name: str, shots: int) -> None:
    """Warn, on the main host, that so few shots are not learned from."""
    if processes.is_main():
        warnings.warn(f"{name}: {too_few(shots)}", stacklevel=3)


def too_few(shots: int) -> str:
    """Return a sentence that says why nothing is learned from so few shots, and what would do."""
    error = 50 / (LEAST - 1) ** 0.5
    return (
        f"{shots} shots hold out fewer than {LEAST} independent items, which can't tell whether "
        f"anything was gained (they tell an accuracy to ± {error:.0f} points at best), so nothing "
        f"is learned from them and the frozen model stays; {2 * LEAST} or more shots of different "
        "images would do."
    )


def is_gain(gains: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> bool:
    """Return whether the mean of gains (n,) exceeds its standard error.

    Items of one cluster are not independent: their gains count together. Fewer than `LEAST`
    clusters tell nothing, so they are no gain.
    """
    if not can_tell(clusters):
        return False
    mean, error = mean_and_error(gains, clusters)
    return mean > error


def mean_and_error(gains: np.ndarray, clusters: Sequence[Any] | np.ndarray) -> tuple[float, float]:
    """Return the mean of gains (n,) of two clusters or more, and its standard error."""
    mean = gains.mean()
    sums = np.bincount(cluster_ids(list(clusters)), gains - mean)  # of each cluster
    error = np.sqrt(np.sum(sums**2) * len(sums) / (len(sums) - 1)) / len(gains)
    return float(mean), float(error)


def judge(gains: np.ndarray, clusters: Sequence[Any] | np.ndarray, what: str) -> HeldOutVerdict:
    """Return the verdict of n held-out items on `what` was learned, from their gains (n,).

    Clusters (n,) are at least `LEAST`.
    """
    mean, error = mean_and_error(gains, clusters)
    kept = is_gain(gains, clusters)
    return HeldOutVerdict(what=what, kept=kept, gain=mean, error=error, items=len(gains))


def best_if_significant(
    state: TrainState,
    schedule: CheckSchedule,
    clusters: Sequence[Any] | np.ndarray,
    what: str = "it",
) -> tuple[dict[int, float], HeldOutVerdict]:
    """Return {step: mean held-out loss}, and the verdict on the best check's params.

    Args:
        state: at the end of training.
        schedule: of the checks.
        clusters: (n,) of the held-out items.
        what: was learned, for the verdict.
    """
    checks = {
        min(check * schedule.check_every, schedule.steps): float(loss)
        for check, loss in enumerate(state.held_out.mean(axis=1))
        if not np.isnan(loss)
    }
    best = int(state.best_check)
    gains = state.held_out[0] - state.held_out[best]
    verdict = judge(gains, clusters, what)
    return checks, verdict.model_copy(update={"step": list(checks)[best]})


def split(
    clusters: Sequence[Any] | np.ndarray, part: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the items to train on, and of those held out.

    A part of the items is held out: of at least `LEAST` clusters as far as half of them are that
    many, and at most half. Clusters stay whole: none is both trained on and held out.
    """
    ids = cluster_ids(list(clusters))
    sizes = np.bincount(ids)
    members = np.split(np.argsort(ids, kind="stable"), np.cumsum(sizes)[:-1])
    count, half = len(ids), len(ids) // 2
    wanted = int(np.clip(round(part * count), min(LEAST, half), half))
    least = min(LEAST, len(members) // 2)
    train: list[int] = []
    held_out: list[int] = []
    clusters_held = 0
    for cluster in np.random.default_rng([seed, 6]).permutation(len(members)):
        fits = len(held_out) + sizes[cluster] <= half
        if fits and (len(held_out) < wanted or clusters_held < least):
            held_out += members[cluster].tolist()
            clusters_held += 1
        else:
            train += members[cluster].tolist()
    return np.array(train, np.int64), np.array(held_out, np.int64)
