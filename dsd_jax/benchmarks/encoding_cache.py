"""What the frozen encoders said of a picture or a caption, kept on disk for the next run.

An entry is a `.npy` file named by a SHA-256 of everything that it depends on: the encoder's weights
and their dtype, its config, how images are prepared, and the pixels or the words. So nothing ever
has to be thrown away because it is out of date, folders can be shared by runs and hosts, and
deleting one costs time alone. Behind the array an entry has the SHA-256 of its name and array: one
that was damaged is computed again.
"""

import hashlib
import io
import os
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.io.regular_file import read_regular_file
from dsd_jax.models.weights_digest import weights_digest

# One or many numbers of rows -> what the encoder says of them, a row each.
Compute = Callable[[list[int]], Any]
_MOST = 2**32  # bytes of an entry
_DIGEST = hashlib.sha256().digest_size


class Cache:
    """A folder of encoded pictures or captions of one encoder.

    Args:
        folder: created if need be.
        params: the encoder's weights.
        preparation: all else that decides what a row becomes, such as the encoder's config and the
            size of images.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, params: Any, preparation: str):
        """Computes the weights' digest, about a second per gigabyte."""
        self._folder, self._told = folder, False
        self._start = f"{weights_digest(params)} {preparation} ".encode()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"cache: {folder} cannot be written to ({error.strerror}); name another folder, or "
                "'' for none."
            ) from error

    def rows(self, inputs: Sequence[bytes], compute: Compute) -> np.ndarray:
        """A row per input: from disk where it is there whole, the others computed in one go."""
        files = [self._file(content) for content in inputs]
        found, damaged = {}, 0
        for file in dict.fromkeys(files):
            try:
                found[file] = _read(file)
            except ValueError:
                found[file], damaged = None, damaged + 1
        if damaged and not self._told:
            self._told = True
            warnings.warn(
                f"cache: {damaged} of {len(found)} entries in {self._folder} are damaged; such "
                "entries are computed again.",
                stacklevel=2,
            )
        missing = [file for file, row in found.items() if row is None]
        if missing:
            computed = np.asarray(compute([files.index(file) for file in missing]))
            for file, row in zip(missing, computed, strict=True):
                _write(file, row)
                found[file] = row
        return np.stack([found[file] for file in files])

    def _file(self, content: bytes) -> Path:
        name = hashlib.sha256(self._start + content).hexdigest()
        return self._folder / name[:2] / f"{name}.npy"


def _read(file: Path) -> np.ndarray | None:
    """Return the entry's array; None where there is no such file.

    Raises:
        ValueError: it is not what was written.
    """
    try:
        content = read_regular_file(file, most=_MOST)
    except UserError:
        return None
    array, digest = content[:-_DIGEST], content[-_DIGEST:]
    if _digest(file, array) != digest:
        raise ValueError(f"{file} is damaged")
    return np.load(io.BytesIO(array), allow_pickle=False)


def _digest(file: Path, array: bytes) -> bytes:
    return hashlib.sha256(file.name.encode() + array).digest()


def _write(file: Path, row: np.ndarray) -> None:
    """Whole or not at all; a full disk costs the entry, not the run."""
    array = io.BytesIO()
    np.save(array, row)
    content = array.getvalue() + _digest(file, array.getvalue())
    try:
        file.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                part.write(content)
                part.flush()
                os.replace(part.name, file)
            except OSError:
                os.unlink(part.name)
                raise
    except OSError:
        return
