"""Checkpoints of a run: restores the newest intact one; damaged ones are reported and skipped.

Orbax neither notices a flipped byte nor an empty folder with a step's name, so each checkpoint
carries the SHA-256 of each part of its state and of its description, and restoring tries the newest
step first. A damaged checkpoint is renamed, not deleted, when the next one is saved.
"""

import json
import logging
import math
import os
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from dsd_jax.distributed import processes
from dsd_jax.errors import Preempted, UserError
from dsd_jax.io.storage import absolute, is_remote, storage_errors
from dsd_jax.training.checkpoint_digests import (
    check_seal,
    differences,
    digests,
    is_finite,
    seal,
)

KEEP = 2
_NOTE = "_CHECKPOINT_METADATA"  # Orbax's file in every step, without which it opens it as well


class BestByMetric:
    """Orbax's policy to preserve the step with the lowest metric, the newer of equals.

    Folders with a step's name whose metric can't be read are preserved, too. Orbax's own `BestN`
    keeps metrics in files of their own, and opens no checkpoint where one of these is damaged.
    """

    def __init__(self):
        """Start without metrics."""
        self.metrics: dict[int, float] = {}
        self.unknown: set[int] = set()

    @property
    def lowest(self) -> float:
        """The lowest metric, infinite where no step has one."""
        return min(self.metrics.values(), default=math.inf)

    def read(self, folder: epath.Path, steps: Iterable[int]) -> None:
        """Read the metrics that steps were saved with; those that can't be read have none."""
        for step in steps:
            try:
                self.add(step, _read_meta(folder / str(step), step)["metric"])
            except (OSError, ValueError, LookupError):  # restoring reports it
                self.unknown.add(step)

    def add(self, step: int, metric: float | None) -> None:
        """Record that a step is saved, with its metric if it has one."""
        self.unknown.discard(step)
        if metric is not None:
            self.metrics[step] = float(metric)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Return for each existing checkpoint whether to preserve it."""
        del context
        steps = [info.step for info in checkpoints if info.step in self.metrics]
        best = min(steps, key=lambda step: (self.metrics[step], -step), default=None)
        return [info.step == best or info.step in self.unknown for info in checkpoints]


def _read_meta(folder: epath.Path, step: int) -> dict[str, Any]:
    """Return a step's description; OSError, ValueError or LookupError for a damaged one."""
    meta = json.loads((folder / "meta" / "metadata").read_text())
    check_seal(meta)
    if meta["step"] != step:
        raise ValueError(f"it is a copy of step {meta['step']}")
    return meta


class Checkpoints:
    """A context manager of the checkpoints of one run in one folder.

    The last `KEEP` are kept, and the one with the lowest metric.

    Args:
        folder: a path or gs://BUCKET/FOLDER; created if need be.
        identity: JSON values that must be equal for a run to be resumed, such as its config.

    Raises:
        UserError: the folder can't be written to, now or when saving.
    """

    def __init__(self, folder: str | os.PathLike, identity: dict[str, Any]):
        """Open the folder without reading a state."""
        self.folder = absolute(folder)
        # As it will be read back: tuples are lists.
        self.identity = json.loads(json.dumps(identity))
        self._best = BestByMetric()
        self._damaged: list[int] = []
        self._newest: int | None = None  # step that was restored or saved last
        with self._storage_errors("opened"):
            self._killed = self._find_killed()  # before Orbax tidies up
            self._manager = self._open()
        self._best.read(self.folder, self._manager.all_steps())
        logging.getLogger("absl").addFilter(_is_not_orbax_error)

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Wait for saves under way; raise if one failed, unless a worse error is under way."""
        try:
            with self._storage_errors("saved"):
                self._manager.close()
        except UserError as failure:
            if error is None or isinstance(error, Preempted):
                raise
            if not isinstance(error, UserError):  # which most likely is this failure
                print(failure, file=sys.stderr)
        finally:
            logging.getLogger("absl").removeFilter(_is_not_orbax_error)

    @property
    def best(self) -> float:
        """The lowest metric of all checkpoints, infinite without any."""
        return self._best.lowest

    def newest(self) -> int | None:
        """Return the step that `restore` would return now, after waiting for saves under way.

        None where there is no intact checkpoint, or `restore` was never called.

        Raises:
            UserError: a save under way failed.
        """
        self._wait()
        return self._newest

    def save(
        self, step: int, state: Any, *, examples: int = 0, metric: float | None = None
    ) -> None:
        """Save in the background; all hosts must call it together.

        Args:
            step: the number of steps done, which is also the number of the next batch.
            state: arrays, sharded in any way, and numbers.
            examples: how many were seen in these steps, for the description.
            metric: of this state, the lower the better.

        Raises:
            UserError: this or an earlier save failed.
        """
        with self._storage_errors("saved"):
            self._set_damaged_aside()
            if step in self._manager.all_steps():
                return
            self._newest = step
            meta = {
                "step": step,
                "data": {"next_batch": step, "examples": examples},
                "metric": metric,
                "digests": digests(state),
                "identity": self.identity,
            }
            self._best.add(step, metric)
            args = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave(seal(meta))}
            self._manager.save(step, args=ocp.args.Composite(**args))

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """Return the newest intact checkpoint as (steps done, state), placed and shaped as `like`.

        It may have been saved on another number of devices or hosts. All hosts must call it
        together. None where no checkpoint can be read.

        Raises:
            UserError: the folder belongs to a run with another config or other weights.
        """
        for step in self._killed:
            self._print_skipped(step, "unfinished", "its save was killed")
        self._killed.clear()
        self._wait()
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, flaw = self._read(step, like)
            if processes.all_agree(not flaw):
                self._newest = step
                return step, state
            self._damaged.append(step)
            self._print_skipped(step, "damaged", flaw or "another host cannot read it")
        return None

    def _read(self, step: int, like: Any) -> tuple[Any, str]:
        """Return the state of a step, and what is wrong with it: "" for a whole one."""
        state, meta, flaw = None, {}, ""
        try:
            meta = self._check_files(step)
            if different := differences(meta["identity"], self.identity):
                raise UserError(
                    f"{self.folder} holds a run with {different}; take another --workdir or the "
                    "same config."
                )
            args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            state = self._manager.restore(step, args=args)["state"]
        except Exception as error:
            if not _means_damage(error):
                raise
            flaw = (str(error).splitlines() or [type(error).__name__])[0][:200]
        # The rest is collective: all hosts do it, or none.
        if not processes.all_agree(not flaw):
            return None, flaw
        actual = digests(state)
        parts = [part for part, digest in meta["digests"].items() if actual.get(part) != digest]
        if parts:
            return None, f"the digest of {parts[0]} does not match its content"
        # Earlier versions saved such states, from which no run can go on.
        return state, "" if is_finite(state) else "its state is not finite"

    def _check_files(self, step: int) -> dict[str, Any]:
        """Check the JSON files that Orbax trusts; return the step's description.

        Raises:
            OSError, ValueError, LookupError: one is damaged.
        """
        folder = self.folder / str(step)
        arrays = folder / "state" / "array_metadatas"
        for file in [
            folder / "state" / "_METADATA",
            *(arrays.iterdir() if arrays.exists() else ()),
        ]:
            if file.exists() and not isinstance(json.loads(file.read_text()), dict):
                raise ValueError(f"{file.name} is no JSON object")
        return _read_meta(folder, step)

    def _open(self) -> ocp.CheckpointManager:
        """Open Orbax's manager; set aside its notes on single steps if it can't read them."""
        options = ocp.CheckpointManagerOptions(
            preservation_policy=AnyPreservationPolicy([LatestN(KEEP), self._best]),
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
        )
        try:
            return ocp.CheckpointManager(self.folder, options=options)
        except (ValueError, TypeError, LookupError):
            notes = [place / _NOTE for place in self.folder.iterdir() if place.name.isdecimal()]
            notes = [note for note in notes if note.exists()]
            if not notes:
                raise
            processes.barrier("all have seen the notes")
            if processes.is_main():
                for note in notes:  # they hold times alone
                    note.rename(note.with_name(f"damaged{_NOTE}-{time.time_ns()}"))
            processes.barrier("the notes are set aside")
            return ocp.CheckpointManager(self.folder, options=options)

    def _find_killed(self) -> list[int]:
        """Return steps whose saving was cut short, which Orbax does not list."""
        killed = []
        for place in self.folder.iterdir() if self.folder.exists() else ():
            name, unfinished, _ = place.name.partition(".orbax-checkpoint-tmp")
            if is_remote(place):  # buckets can't rename: a file in the folder says that it's whole
                unfinished = not (place / "commit_success.txt").exists()
            if name.isdecimal() and unfinished:
                killed.append(int(name))
        return killed

    def _set_damaged_aside(self) -> None:
        """Rename damaged checkpoints: Orbax silently saves no step before its newest one."""
        if not self._damaged:
            return
        if processes.is_main():
            for step in self._damaged:
                _rename(self.folder / str(step), self.folder / f"damaged-{step}-{time.time_ns()}")
        processes.barrier("damaged checkpoints are set aside")
        for step in self._damaged:
            self._best.metrics.pop(step, None)
        self._damaged.clear()
        self._manager.reload()

    def _wait(self) -> None:
        """Wait for saves under way."""
        with self._storage_errors("saved"):
            self._manager.wait_until_finished()

    def _storage_errors(self, done: str) -> AbstractContextManager[None]:
        return storage_errors(
            f"checkpoints in {self.folder} cannot be {done}",
            "steps since the last one are lost: make room or allow it, then resume with the same "
            "command",
        )

    def _print_skipped(self, step: int, flaw: str, reason: str) -> None:
        if processes.is_main():
            line = f"checkpoint {step} in {self.folder} is {flaw}, passed over: {reason}"
            print(line, file=sys.stderr)


def _rename(folder: epath.Path, target: epath.Path) -> None:
    """Rename a folder; in a bucket files are copied one by one, so that a failure leaves a part."""
    try:
        folder.rename(target)
    except FileNotFoundError:
        if not is_remote(folder):
            raise
        if folder.exists():
            folder.rename(target)


def _means_damage(error: Exception) -> bool:
    """Return whether the error is one that reading a damaged file raises."""
    if isinstance(error, UserError):
        return False
    # Orbax raises a plain Exception for arrays that TensorStore can't read.
    return isinstance(error, OSError | ValueError | LookupError) or type(error) is Exception


def _is_not_orbax_error(record: logging.LogRecord) -> bool:
    """Drop Orbax's tracebacks of failed saves, which it also raises and `UserError` reports."""
    return record.levelno != logging.ERROR or "orbax" not in record.pathname
