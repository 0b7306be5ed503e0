"""A tensor as it lies in a file, read on demand, and the error for files of another kind."""

import math
import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import open_regular_file, unreadable

FLOATING = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}

# An adapter's alpha may be of integer types too.
NUMBERS = FLOATING | {name: np.dtype(name) for name in ("int8", "int16", "int32", "int64", "uint8")}


class WeightsFile:
    """A regular file that is opened once, and closed when it is no longer referenced.

    Attributes:
        path: the file's path.
        stream: the opened file, to read from its start to its end.
        size: its size in bytes.
    """

    def __init__(self, path: Path):
        """Open it; raises `UserError` where it can't be read."""
        self.path, self.stream = path, open_regular_file(path)
        self.size = os.fstat(self.stream.fileno()).st_size

    def __del__(self):
        """Close it; a file that could not be opened has no stream."""
        if hasattr(self, "stream"):
            self.stream.close()

    def read(self, count: int, offset: int = 0) -> bytes:
        """Return at most `count` bytes from `offset` on; raises `UserError` where that fails."""
        try:
            return os.pread(self.stream.fileno(), count, offset)
        except OSError as error:
            raise unreadable(self.path, error) from error

    def array(self, dtype: np.dtype, shape: tuple[int, ...], offset: int) -> np.ndarray:
        """Return a read-only view of numbers in the file; their pages are freed with the array."""
        if not math.prod(shape):
            return np.empty(shape, dtype)
        start = offset - offset % mmap.ALLOCATIONGRANULARITY
        length = offset - start + math.prod(shape) * dtype.itemsize
        pages = mmap.mmap(self.stream.fileno(), length, access=mmap.ACCESS_READ, offset=start)
        return np.frombuffer(pages, dtype, math.prod(shape), offset - start).reshape(shape)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file, of which nothing is read before `read`.

    Attributes:
        file: the opened file.
        name: its name there: `a.0.weight` in safetensors, `a_0/kernel` in Flax msgpack.
        shape: its shape there, thus OIHW in safetensors and HWIO in msgpack.
        dtype: NumPy's name of its type, or the file's own where NumPy has none.
        offset: position of its first byte in the file.
        flax: true if name and shape are Flax's, false if PyTorch's.
    """

    file: WeightsFile
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    flax: bool

    def read(self) -> np.ndarray:
        """Return a read-only view of the file, so that at most one tensor is held twice."""
        return self.file.array(NUMBERS[self.dtype], self.shape, self.offset)


def wrong_format_error(file: WeightsFile, form: str, why: str) -> UserError:
    """Return the error for a file that is not of the format `form`.

    Args:
        file: the file, whose start tells what it is instead.
        form: name of the expected format.
        why: end of the sentence where the start does not tell.
    """
    start = file.read(512)
    if not start:
        why = "is empty; fetch it again"
    elif start.startswith(b"version https://git-lfs"):
        why = "is a git-lfs pointer and not the weights; run `git lfs pull` in its repository"
    elif start.lstrip().startswith(b"<"):
        why = f"is a web page and not {form}, as a failed download leaves; fetch it again"
    elif start.startswith((b"PK\x03\x04", b"\x80\x02}", b"\x80\x02\x8a")):
        why = f"is a PyTorch pickle and not {form}; convert it with safetensors.torch.save_file"
    elif start.isascii() and start.decode().replace("\n", "").replace("\t", "").isprintable():
        why = f"is a text file and not {form}; fetch it again"
    return UserError(f"{file.path} {why}.")
