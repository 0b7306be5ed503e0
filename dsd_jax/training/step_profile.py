"""A profile of a few training steps, by JAX's profiler, to be looked at with XProf."""

import warnings
from contextlib import suppress
from typing import Any

import jax
from etils import epath


class StepProfile:
    """A context manager that traces some steps of a training; a failure of it ends no run.

    Args:
        steps: "START:STEPS", how many steps go before and how many are traced; "" for none.
        folder: the trace goes to `plugins/profile/` in it, where XProf and TensorBoard look.
    """

    def __init__(self, steps: str, folder: epath.Path | None):
        """Start nothing yet."""
        start, _, count = steps.partition(":")
        self._folder = folder if steps else None
        self._start, self._count = int(start or 0), int(count or 0)
        self._first: int | None = None  # step that is traced first, once one is

    def __enter__(self) -> "StepProfile":
        """Return itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Write a trace that has begun; warn where the training had too few steps for one."""
        if self._first is not None:
            self._stop()
        elif self._folder and error[0] is None:
            self._give_up(f"the training ended before step {self._start}")

    def before(self, done: int) -> None:
        """Start the trace if the next step is its first, after `done` steps."""
        if self._folder and self._first is None and done >= self._start:
            self._first = done
            try:
                jax.profiler.start_trace(str(self._folder))
            except Exception as error:  # of the profiler, or a disk
                self._give_up(error)

    def after(self, done: int, state: Any) -> None:
        """Write the trace if step number `done` was its last; waits until it is computed."""
        if self._folder and self._first is not None and done >= self._first + self._count:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        if self._folder:
            try:
                jax.profiler.stop_trace()
            except Exception as error:
                self._give_up(error)
        self._folder, self._first = None, None

    def _give_up(self, reason: object) -> None:
        warnings.warn(f"no profile of {self._folder} is written ({reason}).", stacklevel=3)
        with suppress(Exception):
            jax.profiler.stop_trace()
        self._folder, self._first = None, None
