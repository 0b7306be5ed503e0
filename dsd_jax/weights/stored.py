"""A tensor as it lies in a file, and what a file that holds none turns out to be."""

from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from dsd_jax.errors import UserError

FLOATING = {
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float32": np.dtype(np.float32),
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class Stored:
    """One tensor's place in a file; nothing of it is read before `read`.

    Attributes:
        file: the file.
        name: its name there: `a.0.weight` in safetensors, `a_0/kernel` in Flax msgpack.
        shape: its shape there, thus OIHW in safetensors and HWIO in msgpack.
        dtype: numpy's name of its type, or the file's own where numpy has none.
        offset: where its bytes begin.
        flax: whether name and shape are Flax's.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    offset: int
    flax: bool

    def read(self) -> np.ndarray:
        """A read-only view of the file, so that no more than one tensor is ever held twice."""
        return np.asarray(
            np.memmap(self.file, FLOATING[self.dtype], "r", offset=self.offset, shape=self.shape)
        )


def not_weights(file: Path, form: str, why: str) -> UserError:
    """The error for a `file` that can't be parsed as `form`: what it is instead, else `why`."""
    with file.open("rb") as stream:
        start = stream.read(512)
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
    return UserError(f"{file} {why}.")
