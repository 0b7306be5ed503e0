"""Checkpoints of a run through Orbax: newest whole one wins, a damaged one is passed over aloud.

Orbax neither notices a flipped byte nor an empty folder with a step's name, so every checkpoint
carries the SHA-256 of each part of its state and of its description, and restoring tries the newest
step first. What could not be read is renamed, not deleted, when the next checkpoint is saved.
"""

import json
import logging
import os
import sys
import time
from contextlib import AbstractContextManager
from typing import Any

import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

from dsd_jax.distributed import processes
from dsd_jax.errors import Preempted, UserError
from dsd_jax.io.storage import absolute, is_remote, storage_errors
from dsd_jax.training.best_checkpoint import Best
from dsd_jax.training.finite_state import is_finite
from dsd_jax.training.same_run import check_identity
from dsd_jax.training.state_digest import check_seal, digests, seal

KEEP = 2
_NOTE = "_CHECKPOINT_METADATA"  # Orbax's file in every step, without which it opens it as well


class Checkpoints:
    """The checkpoints of one run in one folder, as a context manager.

    The last `KEEP` are kept, and the one with the lowest metric.

    Args:
        folder: a path or gs://BUCKET/FOLDER; created if need be.
        identity: what must be equal for a run to be continued (its config); JSON values.

    Raises:
        UserError: it is not possible to write there, now or when saving.
    """

    def __init__(self, folder: str | os.PathLike, identity: dict[str, Any]):
        """Open the folder; no state is read yet."""
        self.folder = absolute(folder)
        # As it will be read back: tuples are lists.
        self.identity = json.loads(json.dumps(identity))
        self._best = Best()
        self._damaged: list[int] = []
        self._newest: int | None = None  # step that was restored or saved last
        with self._explained("opened"):
            self._killed = self._find_killed()  # before Orbax tidies up
            self._manager = self._open()
        self._best.read(self.folder, self._manager.all_steps())
        logging.getLogger("absl").addFilter(_is_not_raised_anyway)

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        """Wait for saves under way; a failed one is an error, unless there is a worse one."""
        try:
            with self._explained("saved"):
                self._manager.close()
        except UserError as failure:
            if error is None or isinstance(error, Preempted):
                raise
            if not isinstance(error, UserError):  # which is this very failure, most likely
                print(failure, file=sys.stderr)
        finally:
            logging.getLogger("absl").removeFilter(_is_not_raised_anyway)

    @property
    def best(self) -> float:
        """The lowest metric of all checkpoints, infinite where none has one."""
        return self._best.lowest

    def newest(self) -> int | None:
        """Return the step that `restore` would return now, after waiting for saves under way.

        None where there is no whole checkpoint, or `restore` was never called.

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
            examples: how many were seen in these steps.
            metric: of this very state, the lower the better.

        Raises:
            UserError: this or an earlier save failed.
        """
        with self._explained("saved"):
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
        """The newest whole checkpoint as (steps done, state), placed and shaped as `like`.

        It does not matter on how many devices or hosts it was saved. All hosts must call it
        together.

        Returns:
            None where there is no checkpoint that can be read.

        Raises:
            UserError: the folder belongs to a run with another config or other weights.
        """
        for step in self._killed:
            why = "its save was killed"
            self._tell(f"checkpoint {step} in {self.folder} is unfinished, passed over: {why}")
        self._killed.clear()
        self._wait()
        for step in sorted(self._manager.all_steps(), reverse=True):
            state, flaw = self._read(step, like)
            if processes.all_agree(not flaw):
                self._newest = step
                return step, state
            self._damaged.append(step)
            why = flaw or "another host cannot read it"
            self._tell(f"checkpoint {step} in {self.folder} is damaged, passed over: {why}")
        return None

    def _read(self, step: int, like: Any) -> tuple[Any, str]:
        """Return the state of a step, and what is wrong with it: "" for a whole one."""
        state, meta, flaw = None, {}, ""
        try:
            meta = self._read_meta(step)
            check_identity(self.folder, meta["identity"], self.identity)
            args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
            state = self._manager.restore(step, args=args).state
        except Exception as error:
            if not _is_of_damage(error):
                raise
            flaw = (str(error).splitlines() or [type(error).__name__])[0][:200]
        # What follows all hosts must do together, or none.
        if not processes.all_agree(not flaw):
            return None, flaw
        found = digests(state)
        parts = [part for part, digest in meta["digests"].items() if found.get(part) != digest]
        if parts:
            return None, f"the digest of {parts[0]} does not match its content"
        # As earlier versions saved it: going on from there would end at once, for ever.
        return state, "" if is_finite(state) else "its state is not finite"

    def _read_meta(self, step: int) -> dict[str, Any]:
        """Return a step's description; OSError, ValueError or LookupError for a damaged one."""
        folder = self.folder / str(step)
        arrays = folder / "state" / "array_metadatas"
        files = [folder / "state" / "_METADATA", *(arrays.iterdir() if arrays.exists() else ())]
        for file in files:  # whose content Orbax believes
            if file.exists() and not isinstance(json.loads(file.read_text()), dict):
                raise ValueError(f"{file.name} is no JSON object")
        meta = json.loads((folder / "meta" / "metadata").read_text())
        check_seal(meta)
        if meta["step"] != step:
            raise ValueError(f"it is a copy of step {meta['step']}")
        return meta

    def _open(self) -> ocp.CheckpointManager:
        """Open Orbax's manager, past notes on single steps that it can't read."""
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
                for note in notes:  # on times alone
                    note.rename(note.with_name(f"damaged{_NOTE}-{time.time_ns()}"))
            processes.barrier("the notes are set aside")
            return ocp.CheckpointManager(self.folder, options=options)

    def _find_killed(self) -> list[int]:
        """Steps whose saving was cut short: Orbax never takes them for whole."""
        found = []
        for place in self.folder.iterdir() if self.folder.exists() else ():
            name, unfinished, _ = place.name.partition(".orbax-checkpoint-tmp")
            if is_remote(place):  # buckets can't rename: a file in the folder says that it's whole
                unfinished = not (place / "commit_success.txt").exists()
            if name.isdecimal() and unfinished:
                found.append(int(name))
        return found

    def _set_damaged_aside(self) -> None:
        """Rename what could not be read: Orbax silently saves no step before its newest one."""
        if not self._damaged:
            return
        if processes.is_main():
            for step in self._damaged:
                aside = f"damaged-{step}-{time.time_ns()}"
                (self.folder / str(step)).rename(self.folder / aside)
        processes.barrier("damaged checkpoints are set aside")
        for step in self._damaged:
            self._best.metrics.pop(step, None)
        self._damaged.clear()
        self._manager.reload()

    def _wait(self) -> None:
        """Wait for saves under way."""
        with self._explained("saved"):
            self._manager.wait_until_finished()

    def _explained(self, done: str) -> AbstractContextManager[None]:
        return storage_errors(
            f"checkpoints in {self.folder} cannot be {done}",
            "what was computed since the last one is not kept: make room or allow it, then resume "
            "with the same command",
        )

    def _tell(self, line: str) -> None:
        if processes.is_main():
            print(line, file=sys.stderr)


def _is_of_damage(error: Exception) -> bool:
    """Return whether reading a damaged file raises it; a `UserError` or a bug is not of these."""
    if isinstance(error, UserError):
        return False
    # Orbax raises a plain Exception for arrays that TensorStore can't read.
    return isinstance(error, OSError | ValueError | LookupError) or type(error) is Exception


def _is_not_raised_anyway(record: logging.LogRecord) -> bool:
    """Orbax logs failed saves with their tracebacks, before it raises what we say in a sentence."""
    return record.levelno != logging.ERROR or "orbax" not in record.pathname
