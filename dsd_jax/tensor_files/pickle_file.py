"""What `torch.save` writes, read without PyTorch and without running what is in it.

Format: torch `serialization.py`. Since 1.6 a zip archive with the pickle `data.pkl` and one
uncompressed entry `data/KEY` a storage; before ("legacy") five pickles, then the storages. A tensor
in the pickle is a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset, a shape and
strides; here these calls only note their arguments.
"""

import io
import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import open_regular_file
from dsd_jax.tensor_files.pickle_program import RefusedError, run
from dsd_jax.tensor_files.stored_tensor import FLOATING, WeightsFile, not_weights

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80\x02"
_MAGIC = 0x1950A86A20F9469CFC6C  # legacy files' first pickle
_FORM = "a file that torch.save writes"
# What zipfile, struct and the machine raise where bytes make no sense.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
)


@dataclass(frozen=True)
class _Storage:
    """A piece of memory that tensors share."""

    dtype: np.dtype
    key: str
    count: int


@dataclass(frozen=True)
class _Tensor:
    """A view of a storage, in numbers and not in bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, numbers: np.ndarray) -> np.ndarray:
        """The tensor, in C order; `ValueError` where it reaches beyond its storage's numbers."""
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        size = math.prod(self.shape)
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or size > numbers.size:
            raise ValueError("a tensor with another shape than its storage")
        if size and self.offset + reach >= numbers.size:
            raise ValueError("a tensor beyond its storage")
        strides = [step * numbers.itemsize for step in self.strides]
        part = numbers[self.offset :] if size else numbers[:0]
        return np.lib.stride_tricks.as_strided(part, self.shape, strides).copy()


def _rebuild(storage, offset, shape, strides, *_) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise TypeError("a tensor without a storage")
    return _Tensor(storage, offset, shape, strides)


def _empty_dict() -> dict:
    return {}  # `dict` itself would hash what it is given, which can take for ever


_NAMES = {
    "collections.OrderedDict": _empty_dict,
    "torch._utils._rebuild_tensor_v2": _rebuild,
    "torch._utils._rebuild_parameter": lambda tensor, *_: tensor,
    "torch.FloatStorage": FLOATING["float32"],
    "torch.HalfStorage": FLOATING["float16"],
    "torch.BFloat16Storage": FLOATING["bfloat16"],
    "torch.DoubleStorage": FLOATING["float64"],
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.BoolStorage": np.dtype(np.bool_),
}


def read(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict, by name, in their own types.

    Raises:
        UserError: the file is none that `torch.save` writes of a state dict, is damaged, or its
            pickle asks for anything but tensors.
    """
    with open_regular_file(file) as stream:
        start = stream.read(len(_ZIP))
        stream.seek(0)
        if not start.startswith((_ZIP, _PICKLE)):
            raise not_weights(WeightsFile(file), _FORM, f"is not {_FORM}")
        try:
            if start.startswith(_ZIP):
                return _read_zip(stream)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_legacy(data)
        except RefusedError as error:
            raise UserError(
                f"{file} {error}, which no file of tensors needs and which could run code, so it "
                "is not read; ask its author for safetensors."
            ) from error
        except _DAMAGE as error:
            raise UserError(
                f"{file} is damaged, cut off or not of a state dict ({error}); fetch it again."
            ) from error


def _read_zip(stream: BinaryIO) -> dict[str, np.ndarray]:
    with zipfile.ZipFile(stream) as archive:
        pickles = [name for name in archive.namelist() if name.split("/")[1:] == ["data.pkl"]]
        if len(pickles) != 1:
            raise ValueError("it has no data.pkl")
        folder = pickles[0].removesuffix("data.pkl")
        if f"{folder}byteorder" in archive.namelist():
            _check_order(_entry(archive, f"{folder}byteorder") == b"little")
        tensors = run(io.BytesIO(_entry(archive, pickles[0])), _NAMES, _storage)
        return _views(tensors, lambda storage: _entry(archive, f"{folder}data/{storage.key}"))


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """An entry's bytes; a compressed one could be of any size, and torch never compresses."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _read_legacy(stream: mmap.mmap) -> dict[str, np.ndarray]:
    storages: dict[str, _Storage] = {}

    def storage(entry: Any) -> _Storage:
        found = _storage(entry)
        return storages.setdefault(found.key, found)

    if run(stream, {}) != _MAGIC:
        raise ValueError("a pickle, but not torch's")
    run(stream, {})  # the version
    _check_order(run(stream, {})["little_endian"])
    tensors = run(stream, _NAMES, storage)
    contents = {}
    for key in run(stream, {}):
        (count,) = struct.unpack("<q", stream.read(8))
        contents[key] = stream.read(max(count, 0) * storages[key].dtype.itemsize)
    return _views(tensors, lambda storage: contents[storage.key])


def _check_order(little: bool) -> None:
    if not little:
        raise ValueError("its bytes are in big-endian order")


def _storage(entry: Any) -> _Storage:
    """A persistent id: ("storage", type, key, device, count), in legacy files also a view."""
    kind, dtype, key, _, count, *view = entry
    if kind != "storage" or not isinstance(dtype, np.dtype) or any(view):
        raise ValueError("a storage of an unknown kind")
    return _Storage(dtype, str(key), int(count))


def _views(tensors: Any, content: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """Every tensor's numbers; `content` gives a storage's bytes."""
    if not isinstance(tensors, dict) or not tensors:
        raise ValueError("it holds no dict of tensors")
    arrays = {}
    for name, tensor in tensors.items():
        if not isinstance(name, str) or not isinstance(tensor, _Tensor):
            raise ValueError(f"its entry {name} is no tensor")
        storage = tensor.storage
        data = content(storage)
        if len(data) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"{name} has {len(data)} bytes")
        arrays[name] = tensor.view(np.frombuffer(data, storage.dtype))
    return arrays
