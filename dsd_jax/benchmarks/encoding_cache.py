"""Caches of what the frozen encoders return for an image or a caption: in memory and on disk.

An entry on disk is a `.npy` file named by a SHA-256 of everything that it depends on: the encoder's
params and their dtype, its config, how images are prepared, and the pixels or the caption. So no
entry is ever out of date, runs and hosts can share a folder, and deleting it costs time alone.
Behind the array stands the SHA-256 of name and array: a damaged entry is computed again.
"""

import hashlib
import io
import warnings
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.storage import write_file
from dsd_jax.models.params import weights_digest

MEMORY_BUDGET = 2**30  # bytes
_MAX_BYTES = 2**32  # of an entry on disk
_DIGEST_BYTES = hashlib.sha256().digest_size

# Arrays of equally many rows, such as text states and pooled states.
Rows = tuple[np.ndarray, ...]


class MemoryCache:
    """Encoded rows by key; beyond `MEMORY_BUDGET` bytes the oldest ones are dropped."""

    def __init__(self):
        """Create an empty cache."""
        self._rows: dict[Hashable, Rows] = {}

    def rows(self, keys: Sequence[Hashable], compute: Callable[[list], Rows]) -> Rows:
        """Return arrays with one row per key; `compute` is asked for the missing ones in one call.

        Args:
            keys: k of them.
            compute: from a list of distinct keys to arrays with one row for each.
        """
        missing = [key for key in dict.fromkeys(keys) if key not in self._rows]
        if missing:
            self._rows.update(zip(missing, zip(*compute(missing), strict=True), strict=True))
        rows = [self._rows[key] for key in keys]
        self._drop_oldest(except_for=set(keys))
        return tuple(np.stack(column) for column in zip(*rows, strict=True))

    def _drop_oldest(self, except_for: set[Hashable]) -> None:
        size = sum(array.nbytes for row in self._rows.values() for array in row)
        for key in [key for key in self._rows if key not in except_for]:
            if size <= MEMORY_BUDGET:
                return
            size -= sum(array.nbytes for array in self._rows.pop(key))


class EncodingCache:
    """A folder of encoded images or captions of one encoder.

    Args:
        folder: created if need be.
        params: the encoder's params.
        settings: all else that an encoding depends on, such as the encoder's config and the size
            of images.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, params: Any, settings: str):
        """Compute the digest of the params, which takes about a second per gigabyte."""
        self._folder, self._has_warned = folder, False
        self._identity = f"{weights_digest(params)} {settings} ".encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cache: {folder} cannot be written to ({error.strerror}); name another folder, or "
                "'' for none."
            ) from error

    def rows(
        self, inputs: Sequence[bytes], compute: Callable[[list[int]], np.ndarray]
    ) -> np.ndarray:
        """Return one row per input: intact entries from disk, the others computed in one call.

        Args:
            inputs: the bytes of each image or caption.
            compute: from indices of inputs to one row for each.
        """
        files = [self._file(content) for content in inputs]
        rows, damaged = {}, 0
        for file in dict.fromkeys(files):
            try:
                rows[file] = _read(file)
            except ValueError:
                rows[file], damaged = None, damaged + 1
        if damaged and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"cache: {damaged} of {len(rows)} entries in {self._folder} are damaged; such "
                "entries are computed again.",
                stacklevel=2,
            )
        missing = [file for file, row in rows.items() if row is None]
        if missing:
            computed = np.asarray(compute([files.index(file) for file in missing]))
            for file, row in zip(missing, computed, strict=True):
                _write(file, row)
                rows[file] = row
        return np.stack([rows[file] for file in files])

    def _file(self, content: bytes) -> Path:
        name = hashlib.sha256(self._identity + content).hexdigest()
        return self._folder / name[:2] / f"{name}.npy"


def _read(file: Path) -> np.ndarray | None:
    """Return the array of an entry; None where there is no such file.

    Raises:
        ValueError: the entry is damaged.
    """
    try:
        content = read_regular_file(file, most=_MAX_BYTES)
    except UserError:
        return None
    array, digest = content[:-_DIGEST_BYTES], content[-_DIGEST_BYTES:]
    if _digest(file, array) != digest:
        raise ValueError(f"{file} is damaged")
    return np.load(io.BytesIO(array), allow_pickle=False)


def _digest(file: Path, array: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + array).digest()


def _write(file: Path, row: np.ndarray) -> None:
    """Write an entry, whole or not at all; a full disk costs the entry, not the run."""
    array = io.BytesIO()
    np.save(array, row)
    try:
        file.parent.mkdir(exist_ok=True)
        write_file(epath.Path(file), array.getvalue() + _digest(file, array.getvalue()))
    except (OSError, UserError):
        return
