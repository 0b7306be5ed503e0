"""The training loop: resume, update, show progress, check, save, and stop on SIGTERM."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn, TypeVar

from etils import epath
from jax.experimental import multihost_utils

from dsd_jax.distributed import processes
from dsd_jax.errors import Preempted, UserError
from dsd_jax.io.progress import Stage, Work
from dsd_jax.training.checkpoint_digests import is_finite
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.metrics_log import MetricsLog
from dsd_jax.training.metrics_trackers import Tracker
from dsd_jax.training.step_profile import StepProfile

State = TypeVar("State")
Batch = TypeVar("Batch")

# Steps between two readings of the main process's clock, which all hosts must do together.
_CLOCK_EVERY = 10


@dataclass(frozen=True)
class LoopOptions:
    """The name of a run, and where and how often it saves and logs.

    Attributes:
        name: written to the log, and shown unless there is a title.
        checkpoints: where the state is saved, at the end and on SIGTERM too.
        log: file of JSON lines.
        save_seconds: time between two checkpoints; a tenth of it where a check is the best so far.
        log_every: steps between two lines.
        progress: whether to show how far the run is.
        title: shown beside that.
        tracker: what else gets the metrics; see `metrics_trackers.py`.
        profile: "START:STEPS" that are traced into `profile/` beside the log; "" for none.
        on_check: called with the step and the metric of each check of few-shot training, and of
            the frozen model as step 0.
    """

    name: str = "training"
    checkpoints: Checkpoints | None = None
    log: str | os.PathLike | None = None
    save_seconds: float = 300.0
    log_every: int = 50
    progress: bool = True
    title: str = ""
    tracker: str = ""
    profile: str = ""
    on_check: Callable[[int, float], None] | None = None

    def stage(self, part: str, total: float | None = None, done: float = 0.0) -> Stage:
        """Return a stage that shows a part of the run, or with an empty name the run itself."""
        name = self.title or self.name
        shown = self.progress and processes.is_main()
        return Stage(f"{name}: {part}" if part else name, total, shown=shown, done=done)


class CheckResult(NamedTuple):
    """The state after a check, whether to stop there, and a metric, the lower the better."""

    state: Any
    stop: bool
    metric: float | None


# From (steps done, state) to the result of a check.
Check = Callable[[int, Any], CheckResult]


@contextmanager
def preemption_guard() -> Iterator[Callable[[int], bool]]:
    """Yield a function of the steps done that says whether to stop there; SIGTERM no longer kills.

    On several hosts SIGTERM to one of them stops all after the same step; JAX listens for it from
    the moment they join. In a thread of a server, which hears no signals, nothing changes.
    """
    if processes.are_several():
        yield multihost_utils.reached_preemption_sync_point
        return
    if threading.current_thread() is not threading.main_thread():
        yield lambda _: False
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


class _Run:
    """A run's checks, its log, its stage and its checkpoints."""

    def __init__(
        self,
        options: LoopOptions,
        steps: int,
        *,
        check: Check | None,
        check_every: int,
        batch_size: int,
    ):
        self._options, self._steps, self._batch_size = options, steps, batch_size
        self._check, self._check_every = check, check_every
        self._saved, self._shown = time.monotonic(), ""  # the last metrics that were logged
        self._held_out: dict[str, float] = {}  # of the last check
        self.log = MetricsLog(options.log if processes.is_main() else None)
        folder = epath.Path(options.log).parent if options.log is not None else None
        self.tracker = Tracker(options.tracker if processes.is_main() else "", folder, options.name)
        self.profile = StepProfile(options.profile, folder and folder / "profile" / options.name)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Keep the log, the tracker and the profile open."""
        with self.log, self.tracker, self.profile:
            yield

    def check(self, done: int, state: Any) -> CheckResult:
        """Run the check of this step, if there is one."""
        last = done == self._steps
        if self._check and done and (done % self._check_every == 0 or last):
            result = CheckResult(*self._check(done, state))
            if result.metric is not None:
                self._held_out = {"held out": float(result.metric)}
                self.tracker.write(done, {"held_out": float(result.metric)})
            return result
        return CheckResult(state, False, None)

    def show(self, stage: Stage, done: int, metrics: Mapping[str, Any], last: bool) -> None:
        """Show and log the metrics every `log_every` steps and at the end."""
        if done % self._options.log_every == 0 or last:
            values = self._finite(done, metrics)
            told = {**values, **self._held_out}
            self._shown = "".join(f", {key} {value:.4g}" for key, value in told.items())
            line = {"phase": self._options.name, "step": done, "time": time.time(), **values}
            self.log.write(line)
            self.tracker.write(done, values)
        stage.status = f"step {done} of {self._steps}{self._shown}"

    def is_due(self, done: int, metric: float | None) -> bool:
        """Return whether it is time to save; ten times as often at the lowest metric so far."""
        checkpoints, seconds = self._options.checkpoints, self._options.save_seconds
        if not checkpoints:
            return False
        best = metric is not None and metric < checkpoints.best
        return is_time_to_save(done, self._saved, seconds / (10 if best else 1))

    def save(self, done: int, state: Any, metrics: Mapping[str, Any], metric: float | None) -> None:
        """Save where there are checkpoints.

        Raises:
            UserError: the loss is not finite, or the state, whatever the loss was that led to it.
        """
        self._finite(done, metrics)
        self.log.flush()
        if not is_finite(state):
            self._refuse("what is trained is no longer finite", done)
        if self._options.checkpoints:
            examples = done * self._batch_size
            self._options.checkpoints.save(done, state, examples=examples, metric=metric)
            self._saved = time.monotonic()

    def _finite(self, done: int, metrics: Mapping[str, Any]) -> dict[str, float]:
        """Return the metrics as Python's numbers, waiting for the device."""
        values = {key: float(value) for key, value in metrics.items()}
        if not all(map(math.isfinite, values.values())):
            self._refuse("the loss is not a number", done)
        return values

    def preempted(self, done: int) -> Preempted:
        """Return the error that ends a run that SIGTERM has stopped and that is saved."""
        name = self._options.name
        return Preempted(f"{name}: stopped at step {done}; resume with the same command.")

    def _refuse(self, reason: str, done: int) -> NoReturn:
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
    *,
    options: LoopOptions,
    check: Check | None = None,
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
        check: every `check_every` steps, at the end and on a restored state: it is idempotent.
        check_every: steps between checks.
        batch_size: items of a batch; checkpoints say how many were seen.

    Raises:
        Preempted: SIGTERM arrived; the state is saved.
        UserError: the loss or the state is no longer finite, and so not saved.
    """
    done, state = (options.checkpoints and options.checkpoints.restore(state)) or (0, state)
    run = _Run(options, steps, check=check, check_every=check_every, batch_size=batch_size)
    state, stopped, _ = run.check(done, state)
    with ExitStack() as stack, options.stage("", steps, done) as stage, run.watch():
        next_batch: Any = batch(done) if done < steps else None
        is_preempted, started, step = None, None, Work(stage, 1)
        while done < steps and not stopped:
            run.profile.before(done)
            with stage.waiting_for("a training step"):
                state, metrics = update(state, next_batch)
            # Until here there was nothing to save: SIGTERM ends the process at once, even while a
            # compiler works for minutes, in which Python could not hear of it.
            is_preempted = is_preempted or stack.enter_context(preemption_guard())
            done += 1
            run.profile.after(done, state)
            next_batch = batch(done) if done < steps else None  # while the device is busy
            if started is not None:
                step.finish(started)  # the step before: the device has this one to go on with
            started = metrics
            with stage.waiting_for("the held-out check"):
                state, stopped, metric = run.check(done, state)
            last = stopped or done == steps
            if last:
                step.finish(metrics)
            run.show(stage, done, metrics, last)
            preempted = is_preempted(done)
            if preempted or last or run.is_due(done, metric):
                run.save(done, state, metrics, metric)
            if preempted:
                raise run.preempted(done)
    return state
