"""Scores that a run has computed, kept in its folder until they are a report.

What is interrupted goes on from there.
"""

import hashlib
import io
import json
from collections.abc import Callable, Mapping

import numpy as np
from etils import epath

from dsd_jax.candidates import RowKey
from dsd_jax.folders import write_file

Scores = Mapping[RowKey, np.ndarray]


class Kept:
    """A folder of scores by what they depend on.

    Args:
        folder: in a workdir; nothing is kept where it is None.
        identity: of all that decides scores besides the items.
    """

    def __init__(self, folder: epath.Path | None, identity: str):
        """Creates nothing yet."""
        self._folder = None if folder is None else epath.Path(folder)
        self._identity = identity

    def scores(self, items: str, compute: Callable[[], Scores]) -> dict[RowKey, np.ndarray]:
        """The scores of some items, whose identity is `items`: from the folder, or computed now."""
        if self._folder is None:
            return dict(compute())
        name = hashlib.sha256(f"{self._identity}\n{items}".encode()).hexdigest()
        file = self._folder / f"{name[:32]}.npz"
        found = _read(file)
        if found is None:
            found = dict(compute())
            self._folder.mkdir(parents=True, exist_ok=True)
            write_file(file, _packed(found))
        return found

    def forget(self) -> None:
        """Delete them: they have become a report."""
        if self._folder is not None and self._folder.exists():
            self._folder.rmtree()


def _packed(scores: Scores) -> bytes:
    buffer = io.BytesIO()
    names = np.array([json.dumps(key) for key in scores])
    digest = np.array(_digest(scores))
    np.savez(buffer, *scores.values(), names=names, digest=digest)
    return buffer.getvalue()


def _read(file: epath.Path) -> dict[RowKey, np.ndarray] | None:
    """None where there is no such file, or one that is damaged."""
    try:
        with np.load(io.BytesIO(file.read_bytes()), allow_pickle=False) as stored:
            keys = [RowKey(*json.loads(str(name))) for name in stored["names"]]
            scores = {key: stored[f"arr_{i}"] for i, key in enumerate(keys)}
            return scores if str(stored["digest"]) == _digest(scores) else None
    except Exception:  # whatever NumPy and zipfile raise at damaged files
        return None


def _digest(scores: Scores) -> str:
    total = hashlib.sha256()
    for key, array in scores.items():
        total.update(f"{key!r} {array.dtype} {array.shape}".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
