"""The loop that all training shares: resume, step, show progress, save, stop when told to."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NoReturn

from jax.experimental import multihost_utils
from tqdm import tqdm

from dsd_jax.distributed import processes
from dsd_jax.errors import Preempted, UserError
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.finite_state import is_finite
from dsd_jax.training.metrics_log import Log

# Steps between two looks at the main process's clock, which all hosts must take together.
_CLOCK_EVERY = 10


@contextmanager
def told_to_stop() -> Iterator[Callable[[int], bool]]:
    """Yields a function of the steps done that says whether to stop there; SIGTERM no longer kills.

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
    """Whether `seconds` have passed since `saved`, by the main process's clock."""
    late = time.monotonic() - saved > seconds
    if not processes.are_several():
        return late
    return done % _CLOCK_EVERY == 0 and processes.broadcast_from_main(late)


class _Saver:
    """Saves a run's state when it is time, and when it has to be, unless it is not finite."""

    def __init__(self, name: str, checkpoints: Checkpoints | None, seconds: float, examples: int):
        self._name, self._checkpoints = name, checkpoints
        self._seconds, self._examples = seconds, examples
        self._saved = time.monotonic()

    def is_due(self, done: int, metric: float | None) -> bool:
        """Return whether enough time has passed; a tenth of it for the lowest metric so far."""
        if not self._checkpoints:
            return False
        best = metric is not None and metric < self._checkpoints.best
        return is_time_to_save(done, self._saved, self._seconds / (10 if best else 1))

    def save(self, done: int, state: Any, metric: float | None) -> None:
        """Save, where there is a place for it.

        Raises:
            UserError: the state is not finite, whatever the loss was that led to it.
        """
        if not is_finite(state):
            self.refuse("what is trained is no longer finite", done)
        if self._checkpoints:
            examples = done * self._examples
            self._checkpoints.save(done, state, examples=examples, metric=metric)
            self._saved = time.monotonic()

    def numbers(self, done: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics as Python's numbers, waiting for the device.

        Raises:
            UserError: one is not finite.
        """
        values = {key: float(value) for key, value in metrics.items()}
        if not all(map(math.isfinite, values.values())):
            self.refuse("the loss is not a number", done)
        return values

    def refuse(self, reason: str, done: int) -> NoReturn:
        """End the run: say why, and from which step the next one goes on."""
        newest = self._checkpoints and self._checkpoints.newest()
        where = "the start, for there is no checkpoint" if newest is None else f"step {newest}"
        raise UserError(
            f"{self._name}: {reason} at step {done}; lower the learning rate, which takes another "
            f"--workdir; the same command goes on from {where}."
        )


def fit(
    name: str,
    state: Any,
    update: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
    batch: Callable[[int], Any],
    steps: int,
    checkpoints: Checkpoints | None = None,
    log: str | os.PathLike | None = None,
    *,
    check: Callable[[int, Any], tuple[Any, bool, float | None]] | None = None,
    check_every: int = 1,
    examples: int = 0,
    save_seconds: float = 300.0,
    log_every: int = 50,
    progress: bool = True,
) -> Any:
    """Run `update` until `steps` are done, from the newest checkpoint if there is one.

    Args:
        name: shown before the progress bar.
        state: what is trained and all that a resumed run needs; donated to `update`. JAX's arrays
            are finite; NumPy's may hold NaN for what has not been computed yet.
        update: (state, batch) -> (state, float32 scalars).
        batch: the batch of a step, a function of its number alone so that a resumed run sees the
            same data. Called while the device works on the step before.
        steps: in total, those of earlier runs included.
        checkpoints: where the state is saved, every `save_seconds`, at the end and on SIGTERM.
        log: JSON lines, one per `log_every` steps.
        check: (steps done, state) -> (state, whether to stop now, metric), every `check_every`
            steps and at the end; asked again about a checkpoint of such a step, so that a run that
            it ended stays ended. Asking twice must not change the state twice. The lower the metric
            the better; the best checkpoint is kept.
        check_every: steps.
        examples: in a batch; checkpoints tell how many were seen.
        save_seconds: time between two checkpoints; a tenth of it where a check is the best so far.
        log_every: steps.
        progress: whether to show a bar.

    Returns:
        The final state.

    Raises:
        Preempted: SIGTERM arrived; the state is saved.
        UserError: the loss or the state is no longer finite, and so not saved; names the step of
            the newest whole checkpoint.
    """
    done, state = (checkpoints and checkpoints.restore(state)) or (0, state)

    def look(done: int, state: Any) -> tuple[Any, bool, float | None]:
        due = check and done and (done % check_every == 0 or done == steps)
        return check(done, state) if due else (state, False, None)

    state, enough, _ = look(done, state)
    saver = _Saver(name, checkpoints, save_seconds, examples)
    bar = tqdm(
        initial=done,
        total=steps,
        desc=name,
        unit="step",
        dynamic_ncols=True,
        disable=not (progress and processes.is_main()),
    )
    with told_to_stop() as stop, bar, Log(log if processes.is_main() else None) as lines:
        ready = batch(done) if done < steps else None
        while done < steps and not enough:
            state, metrics = update(state, ready)
            done += 1
            ready = batch(done) if done < steps else None  # while the device is busy
            bar.update()
            state, enough, metric = look(done, state)
            last = enough or done == steps
            if done % log_every == 0 or last:
                values = saver.numbers(done, metrics)
                bar.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
                lines.write({"phase": name, "step": done, "time": time.time(), **values})
            told = stop(done)
            if told or last or saver.is_due(done, metric):
                saver.numbers(done, metrics)
                lines.flush()
                saver.save(done, state, metric)
            if told:
                raise Preempted(f"{name}: stopped at step {done}; resume with the same command.")
    return state
