"""Checkpoints of a run through Orbax: newest whole one wins, a damaged one is passed over aloud.

Orbax neither notices a flipped byte nor an empty folder with a step's name, so every checkpoint
carries the SHA-256 of its state, and restoring tries the newest step first. What could not be read
is renamed, not deleted, when the next checkpoint is saved.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dsd_jax.errors import UserError

KEEP = 2


def digest(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of every leaf."""
    total = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        array = np.asarray(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


class Checkpoints:
    """The checkpoints of one run in one folder, as a context manager.

    Args:
        folder: created if need be.
        identity: what must be equal for a run to be continued (its config); JSON values.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]):
        """Open the folder; nothing is read yet."""
        self.folder = folder.absolute()
        self.identity = json.loads(
            json.dumps(identity)
        )  # as it will be read back: tuples are lists
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEEP, cleanup_tmp_directories=True, enable_async_checkpointing=True
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._damaged: list[int] = []

    def __enter__(self) -> "Checkpoints":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for saves under way."""
        self._manager.close()

    def save(self, step: int, state: Any) -> None:
        """Save in the background; `step` is the number of steps done."""
        self._set_damaged_aside()
        if step in self._manager.all_steps():
            return
        meta = {"digest": digest(state), "identity": self.identity}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(self, like: Any) -> tuple[int, Any] | None:
        """The newest whole checkpoint as (steps done, state), placed and shaped as `like`.

        Returns:
            None where there is no checkpoint that can be read.

        Raises:
            UserError: the folder belongs to a run with another config.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                meta = self._manager.restore(
                    step, args=ocp.args.Composite(meta=ocp.args.JsonRestore())
                )
                self._check_identity(meta.meta["identity"])
                args = ocp.args.Composite(state=ocp.args.StandardRestore(like))
                state = self._manager.restore(step, args=args).state
                if digest(state) != meta.meta["digest"]:
                    raise ValueError("its digest does not match its content")
                return step, state
            except UserError:
                raise
            except Exception as error:  # whatever a damaged file makes Orbax raise
                self._damaged.append(step)
                reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
                print(
                    f"checkpoint {step} in {self.folder} is damaged, passed over: {reason}",
                    file=sys.stderr,
                )
        return None

    def _set_damaged_aside(self) -> None:
        """Rename what could not be read: Orbax silently saves no step before its newest one."""
        for step in self._damaged:
            aside = f"damaged-{step}-{time.time_ns()}"
            (self.folder / str(step)).rename(self.folder / aside)
        if self._damaged:
            self._manager.reload()
            self._damaged.clear()

    def _check_identity(self, found: dict[str, Any]) -> None:
        changed = [
            name
            for name in sorted(self.identity.keys() | found.keys())
            if self.identity.get(name) != found.get(name)
        ]
        if changed:
            name = changed[0]
            raise UserError(
                f"{self.folder} holds a run with {name} = {found.get(name)!r}, this one has "
                f"{self.identity.get(name)!r}; take another --workdir or the same config."
            )
