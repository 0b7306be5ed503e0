"""The training loop: resume, update, show progress, check, save, and stop on SIGTERM."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

from jax.experimental import multihost_utils
from tqdm import tqdm

from dsd_jax.distributed import processes
from dsd_jax.errors import Preempted, UserError
from dsd_jax.training.checkpoint_integrity import is_finite
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.metrics_log import MetricsLog

State = TypeVar("State")
Batch = TypeVar("Batch")

# Steps between two readings of the main process's clock, which all hosts must do together.
_CLOCK_EVERY = 10


@dataclass(frozen=True)
class LoopOptions:
    """The name of a run, and where and how often it saves and logs.

    Attributes:
        name: shown before the progress bar and written to the log.
        checkpoints: where the state is saved, at the end and on SIGTERM too.
        log: file of JSON lines.
        save_seconds: time between two checkpoints; a tenth of it where a check is the best so far.
        log_every: steps between two lines.
        progress: whether to show a bar.
    """

    name: str = "training"
    checkpoints: Checkpoints | None = None
    log: str | os.PathLike | None = None
    save_seconds: float = 300.0
    log_every: int = 50
    progress: bool = True


class CheckResult(NamedTuple):
    """The state after a check, whether to stop there, and a metric, the lower the better."""

    state: Any
    stop: bool
    metric: float | None


@contextmanager
def preemption_guard() -> Iterator[Callable[[int], bool]]:
    """Yield a function of the steps done that says whether to stop there; SIGTERM no longer kills.

    On several hosts SIGTERM to one of them stops all after the same step; JAX listens for it from
    the moment they join.
    """
    if processes.are_several():
        yield multihost_utils.reached_preemption_sync_point
        return
    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        yield lambda _: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)


def is_time_to_save(done: int, saved: float, seconds: float) -> bool:
    """Return whether `seconds` have passed since `saved`, by the main process's clock."""
    late = time.monotonic() - saved > seconds
    if not processes.are_several():
        return late
    return done % _CLOCK_EVERY == 0 and processes.broadcast_from_main(late)


class _Saver:
    """A saver of a run's finite states, when it is time or when it must."""

    def __init__(self, options: LoopOptions, batch_size: int):
        self._options, self._batch_size = options, batch_size
        self._saved = time.monotonic()

    def is_due(self, done: int, metric: float | None) -> bool:
        """Return whether enough time has passed; a tenth of it for the lowest metric so far."""
        checkpoints, seconds = self._options.checkpoints, self._options.save_seconds
        if not checkpoints:
            return False
        best = metric is not None and metric < checkpoints.best
        return is_time_to_save(done, self._saved, seconds / (10 if best else 1))

    def save(self, done: int, state: Any, metric: float | None) -> None:
        """Save where there are checkpoints.

        Raises:
            UserError: the state is not finite, whatever the loss was that led to it.
        """
        if not is_finite(state):
            self.refuse("what is trained is no longer finite", done)
        if self._options.checkpoints:
            examples = done * self._batch_size
            self._options.checkpoints.save(done, state, examples=examples, metric=metric)
            self._saved = time.monotonic()

    def finite(self, done: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics as Python's numbers, waiting for the device.

        Raises:
            UserError: one is not finite.
        """
        values = {key: float(value) for key, value in metrics.items()}
        if not all(map(math.isfinite, values.values())):
            self.refuse("the loss is not a number", done)
        return values

    def refuse(self, reason: str, done: int) -> NoReturn:
        """Raise `UserError` with the reason and the step from which the next run goes on."""
        newest = self._options.checkpoints and self._options.checkpoints.newest()
        where = "the start, for there is no checkpoint" if newest is None else f"step {newest}"
        raise UserError(
            f"{self._options.name}: {reason} at step {done}; lower the learning rate, which takes "
            f"another --workdir; the same command goes on from {where}."
        )


def fit(
    state: State,
    update: Callable[[State, Batch], tuple[State, Mapping[str, Any]]],
    batch: Callable[[int], Batch],
    steps: int,
    options: LoopOptions,
    *,
    check: Callable[[int, State], CheckResult] | None = None,
    check_every: int = 1,
    batch_size: int = 0,
) -> State:
    """Run `update` until `steps` are done, from the newest checkpoint if there is one.

    Args:
        state: a pytree of all that a resumed run needs; donated to `update`. JAX arrays are
            finite; NumPy arrays may hold NaN for what is not computed yet.
        update: (state, batch) -> (state, float32 scalars).
        batch: the batch of a step, a function of its number alone so that a resumed run sees the
            same data. Called while the device works on the step before.
        steps: in total, those of earlier runs included.
        options: name, checkpoints, log.
        check: of (steps done, state), every `check_every` steps and at the end; repeated on a
            restored state, so that a run that it ended stays ended: it must be idempotent.
        check_every: steps between checks.
        batch_size: items of a batch; checkpoints say how many were seen.

    Raises:
        Preempted: SIGTERM arrived; the state is saved.
        UserError: the loss or the state is no longer finite, and so not saved; names the step of
            the newest intact checkpoint.
    """
    checkpoints, saver = options.checkpoints, _Saver(options, batch_size)
    done, state = (checkpoints and checkpoints.restore(state)) or (0, state)

    def run_check(done: int, state: Any) -> CheckResult:
        due = check and done and (done % check_every == 0 or done == steps)
        return (
            CheckResult(*check(done, state)) if check and due else CheckResult(state, False, None)
        )

    state, stopped, _ = run_check(done, state)
    log = MetricsLog(options.log if processes.is_main() else None)
    with preemption_guard() as is_preempted, _progress_bar(options, done, steps) as bar, log:
        next_batch: Any = batch(done) if done < steps else None
        while done < steps and not stopped:
            state, metrics = update(state, next_batch)
            done += 1
            next_batch = batch(done) if done < steps else None  # while the device is busy
            bar.update()
            state, stopped, metric = run_check(done, state)
            last = stopped or done == steps
            if done % options.log_every == 0 or last:
                values = saver.finite(done, metrics)
                bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
                log.write({"phase": options.name, "step": done, "time": time.time(), **values})
            preempted = is_preempted(done)
            if preempted or last or saver.is_due(done, metric):
                saver.finite(done, metrics)
                log.flush()
                saver.save(done, state, metric)
            if preempted:
                raise Preempted(
                    f"{options.name}: stopped at step {done}; resume with the same command."
                )
    return state


def _progress_bar(options: LoopOptions, done: int, steps: int) -> tqdm:
    return tqdm(
        initial=done,
        total=steps,
        desc=options.name,
        unit="step",
        dynamic_ncols=True,
        disable=not (options.progress and processes.is_main()),
    )
