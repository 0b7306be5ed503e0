"""Trackers: a training's metrics in TensorBoard, Weights & Biases or trackio, beside its log.

The log's JSON lines remain the truth: a tracker that fails is left out, with one warning.
"""

import hashlib
import importlib.util
import os
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.storage import is_remote

_PROJECT = "dsd_jax"


def check_tracker(kind: str) -> None:
    """Raise `UserError` where the package of a tracker is not installed; "" needs none."""
    if kind and importlib.util.find_spec(kind) is None:
        raise UserError(
            f"--config.tracker={kind} needs the package {kind}; install it: pip install {kind}."
        )


class Tracker:
    """A context manager that hands a training's metrics on, if there is a tracker.

    Args:
        kind: "" for none.
        folder: of the run; TensorBoard's files go to `tensorboard/` in it.
        name: of the training in the run, such as "adapted-256-0".
    """

    def __init__(self, kind: str, folder: epath.Path | None, name: str):
        """Start nothing yet: the first metrics do."""
        self._kind = kind if folder is not None else ""
        self._start = partial(_STARTS.get(self._kind, _no_tracker), folder or epath.Path(), name)
        self._write: Callable[[Mapping[str, float], int], object] | None = None
        self._close: Callable[[], object] = lambda: None

    def __enter__(self) -> "Tracker":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write out what waits; whatever goes wrong is passed over."""
        with suppress(Exception):
            self._close()

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Hand on the metrics of a step."""
        if not self._kind:
            return
        try:
            if self._write is None:
                self._write, self._close = self._start()
            self._write(values, step)
        except Exception as error:  # of another program, a network, a disk
            kind, self._kind = self._kind, ""
            reason = " ".join(str(error).split()) or type(error).__name__
            warnings.warn(
                f"{kind} takes no metrics ({reason}); the run goes on, and its metrics.jsonl has "
                "them all.",
                stacklevel=2,
            )


Started = tuple[Callable[[Mapping[str, float], int], object], Callable[[], object]]


def _no_tracker(folder: epath.Path, name: str) -> Started:
    raise AssertionError(f"{folder}/{name} has no tracker, and so writes nothing")


def _tensorboard(folder: epath.Path, name: str) -> Started:
    from tensorboard.summary import Writer

    writer = Writer(str(folder / "tensorboard" / name))

    def write(values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            writer.add_scalar(key, value, step)
        writer.flush()

    return write, writer.close


def _wandb(folder: epath.Path, name: str) -> Started:
    import wandb  # pyright: ignore[reportMissingImports]

    run = wandb.init(
        project=_PROJECT,
        group=folder.name,
        name=name,
        id=_identity(folder, name),  # a run that is resumed goes on in its curves
        resume="allow",
        dir=None if is_remote(folder) else str(folder),
        settings=wandb.Settings(console="off"),
    )
    return lambda values, step: run.log(dict(values), step=step), run.finish


def _trackio(folder: epath.Path, name: str) -> Started:
    import trackio  # pyright: ignore[reportMissingImports]

    group = folder.name
    run: Any = trackio.init(
        _PROJECT, name=f"{group}-{name}-{_identity(folder, name)}", group=group, resume="allow"
    )
    return lambda values, step: run.log(dict(values), step=step), run.finish


_STARTS: Mapping[str, Callable[[epath.Path, str], Started]] = {
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "trackio": _trackio,
}


def _identity(folder: epath.Path, name: str) -> str:
    """Return letters that no other training has, and that stay when this one is resumed."""
    return hashlib.sha256(f"{os.path.abspath(folder)}/{name}".encode()).hexdigest()[:12]
