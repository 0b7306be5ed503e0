"""The loop that all training shares: resume, step, show progress, save, stop when told to."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from dsd_jax.checkpoints import Checkpoints
from dsd_jax.errors import UserError


class Preempted(Exception):
    """The run was asked to stop, and its state is saved."""


@contextmanager
def told_to_stop() -> Iterator[Callable[[], bool]]:
    """Yields a function that says whether SIGTERM has arrived, which then no longer kills."""
    received = []
    previous = signal.signal(signal.SIGTERM, lambda *_: received.append(True))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, previous)


def fit(
    name: str,
    state: Any,
    update: Callable[[Any, Any], tuple[Any, dict[str, Any]]],
    batch: Callable[[int], Any],
    steps: int,
    checkpoints: Checkpoints,
    log: Path,
    *,
    save_seconds: float = 300.0,
    log_every: int = 50,
) -> Any:
    """Run `update` until `steps` are done, from the newest checkpoint if there is one.

    Args:
        name: shown before the progress bar.
        state: what is trained and all that a resumed run needs; donated to `update`.
        update: (state, batch) -> (state, float32 scalars).
        batch: the batch of a step, a function of its number alone so that a resumed run sees the
            same data. Called while the device works on the step before.
        steps: in total, those of earlier runs included.
        checkpoints: where the state is saved, every `save_seconds` and at the end.
        log: JSON lines, one per `log_every` steps.

    Returns:
        The final state.

    Raises:
        Preempted: SIGTERM arrived; the state is saved.
        UserError: the loss is no longer a number; the last checkpoint precedes it.
    """
    done, state = checkpoints.restore(state) or (0, state)
    saved = time.monotonic()
    progress = tqdm(initial=done, total=steps, desc=name, unit="step", dynamic_ncols=True)
    with told_to_stop() as stop, log.open("a") as lines, progress:
        ready = batch(done) if done < steps else None
        while done < steps:
            state, metrics = update(state, ready)
            done += 1
            ready = batch(done) if done < steps else None  # while the device is busy
            progress.update()
            if done % log_every == 0 or done == steps:
                _write(lines, progress, name, done, metrics)
            if stop() or done == steps or time.monotonic() - saved > save_seconds:
                checkpoints.save(done, state)
                saved = time.monotonic()
            if stop() and done < steps:
                raise Preempted(f"{name}: saved at step {done}; resume with the same command.")
    return state


def _write(lines: Any, progress: tqdm, name: str, done: int, metrics: dict[str, Any]) -> None:
    values = {key: float(value) for key, value in metrics.items()}
    if any(value != value for value in values.values()):
        raise UserError(
            f"{name}: the loss is not a number at step {done}; lower the learning rate."
        )
    lines.write(json.dumps({"phase": name, "step": done, "time": time.time(), **values}) + "\n")
    lines.flush()
    progress.set_postfix({key: f"{value:.4g}" for key, value in values.items()})
