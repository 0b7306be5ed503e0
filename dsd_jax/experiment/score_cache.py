"""Scores that a run has computed, kept in its folder until they are a report.

What is interrupted goes on from there.
"""

import hashlib
import io
import json
import re
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from dsd_jax.benchmarks.table_scores import RowKey
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.storage import is_remote, storage_errors, write_file

Scores = Mapping[RowKey, np.ndarray]

_SUFFIX = ".scores"
_MOST = 2**34  # bytes of a file
# What `write_file` leaves of such a file where it is killed.
_UNFINISHED = re.compile(rf"[0-9a-f]{{32}}\{_SUFFIX}\.[0-9a-f]{{8}}\.unfinished")


class ScoreCache:
    """A folder of scores by what they depend on.

    Args:
        folder: in a workdir; nothing is kept where it is None.
        identity: of all that decides scores besides the items.
    """

    def __init__(self, folder: epath.Path | None, identity: str):
        """Creates nothing yet."""
        self._folder = None if folder is None else epath.Path(folder)
        self._identity = identity
        self._files: set[str] = set()  # names that were asked for

    def scores(self, items: str, compute: Callable[[], Scores]) -> dict[RowKey, np.ndarray]:
        """The scores of some items, whose identity is `items`: from the folder, or computed now."""
        if self._folder is None:
            return dict(compute())
        name = hashlib.sha256(f"{self._identity}\n{items}".encode()).hexdigest()
        file = self._folder / (name[:32] + _SUFFIX)
        self._files.add(file.name)
        found = _read(file)
        if found is None:
            found = dict(compute())
            with storage_errors(f"{self._folder} cannot be written to"):
                self._folder.mkdir(parents=True, exist_ok=True)
            write_file(file, _packed(found))
        return found

    def forget(self) -> None:
        """Delete all scores in the folder, which have become a report, and nothing else.

        Other hosts' scores and those of an earlier version are known by their content.
        """
        if self._folder is None or not self._folder.exists():
            return
        with storage_errors(f"{self._folder} cannot be emptied", "allow it, or delete it yourself"):
            for file in list(self._folder.iterdir()):
                if self._is_own(file):
                    file.unlink()
            if not is_remote(self._folder) and not any(self._folder.iterdir()):
                self._folder.rmdir()

    def _is_own(self, file: epath.Path) -> bool:
        """Return whether this program has written a file."""
        if file.is_dir():
            return False
        if file.name in self._files or _UNFINISHED.fullmatch(file.name):
            return True
        return file.name.endswith(_SUFFIX) and _unsealed(file) is not None


def _packed(scores: Scores) -> bytes:
    """Return the content of a file of scores: the SHA-256 of what follows, an .npz."""
    buffer = io.BytesIO()
    names = np.array([json.dumps(key) for key in scores])
    np.savez(buffer, *scores.values(), names=names)
    return hashlib.sha256(buffer.getvalue()).digest() + buffer.getvalue()


def _read(file: epath.Path) -> dict[RowKey, np.ndarray] | None:
    """Return the scores in a file; None where there is none, or one that is damaged."""
    content = _unsealed(file)
    if content is None:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as stored:
        keys = [RowKey(*json.loads(str(name))) for name in stored["names"]]
        return {key: stored[f"arr_{i}"] for i, key in enumerate(keys)}


def _unsealed(file: epath.Path) -> bytes | None:
    """Return what `_packed` put behind its SHA-256; None where there is nothing of the kind."""
    try:
        content = file.read_bytes() if is_remote(file) else read_regular_file(file, most=_MOST)
    except (OSError, UserError):
        return None
    if hashlib.sha256(content[32:]).digest() != content[:32]:
        return None
    return content[32:]
