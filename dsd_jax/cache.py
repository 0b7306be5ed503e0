"""What the frozen encoders said of a picture or a caption, kept on disk for the next run.

An entry is a `.npy` file named by a SHA-256 of everything that it depends on: the encoder's weights
and their dtype, how pictures are prepared, and the pixels or the words. So nothing ever has to be
thrown away because it is out of date, folders can be shared by runs and hosts, and deleting one
costs time alone.
"""

import hashlib
import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.weights.digest import weights_digest

# One or many numbers of rows -> what the encoder says of them, a row each.
Compute = Callable[[list[int]], Any]


class Cache:
    """A folder of encoded pictures or captions of one encoder.

    Args:
        folder: created if need be.
        params: the encoder's weights.
        preparation: all else that decides what a row becomes, such as the size of pictures.

    Raises:
        UserError: the folder cannot be written to.
    """

    def __init__(self, folder: Path, params: Any, preparation: str):
        """Computes the weights' digest, about a second per gigabyte."""
        self._folder = folder
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
        found = {file: _read(file) for file in dict.fromkeys(files)}
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
    """None where there is no such file, or one that is damaged."""
    try:
        return np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return None


def _write(file: Path, row: np.ndarray) -> None:
    """Whole or not at all; a full disk costs the entry, not the run."""
    try:
        file.parent.mkdir(exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as part:
            try:
                np.save(part, row)
                part.flush()
                os.replace(part.name, file)
            except OSError:
                os.unlink(part.name)
                raise
    except OSError:
        return
