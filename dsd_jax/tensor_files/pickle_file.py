"""Read and write files of `torch.save` without PyTorch; nothing that a file asks for is run.

Format: torch `serialization.py`. Since 1.6 a zip archive with the pickle `data.pkl` and one
uncompressed entry `data/KEY` a storage; before ("legacy") five pickles, then the storages. A tensor
in the pickle is a call of `torch._utils._rebuild_tensor_v2` with a storage, an offset, a shape and
strides; here these calls only note their arguments.
"""

import functools
import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import open_regular_file
from dsd_jax.tensor_files.stored_tensor import FLOATING, WeightsFile, wrong_format_error

_ZIP = b"PK\x03\x04"
_PICKLE = b"\x80\x02"
_MAGIC = 0x1950A86A20F9469CFC6C  # legacy files' first pickle
_FORMAT = "a file that torch.save writes"
# What pickle, zipfile, struct and the machine raise where bytes make no sense.
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
    pickle.UnpicklingError,
    struct.error,
    zipfile.BadZipFile,
)
_PUTS, _GETS = ("BINPUT", "LONG_BINPUT", "MEMOIZE"), ("BINGET", "LONG_BINGET")
# Instructions whose results a pickle may use again; a tuple of tuples, each used twice, would take
# time exponential in its depth to hash.
_SHARED = (
    "GLOBAL", "STACK_GLOBAL", "BINUNICODE", "SHORT_BINUNICODE", "EMPTY_DICT", "EMPTY_LIST",
    "REDUCE", "BINPERSID",
)  # fmt: skip
_UNSHARED = (
    "PROTO", "FRAME", "STOP", "MARK", "BUILD", "SETITEM", "SETITEMS", "APPEND", "APPENDS", "NONE",
    "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "EMPTY_TUPLE",
    "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
)  # fmt: skip
_INSTRUCTIONS = {*_PUTS, *_GETS, *_SHARED, *_UNSHARED}


class _RefusedError(ValueError):
    """The pickle asks for something that no file of tensors needs; the message names it."""


class _Storage(NamedTuple):
    """A piece of memory that tensors share."""

    dtype: np.dtype
    key: str
    count: int


class _Tensor(NamedTuple):
    """A view of a storage, in numbers and not in bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def view(self, numbers: np.ndarray) -> np.ndarray:
        """Return the tensor in C order; `ValueError` if it reaches beyond its storage's numbers."""
        reach = sum((n - 1) * step for n, step in zip(self.shape, self.strides, strict=True))
        size = math.prod(self.shape)
        if min(self.offset, *self.shape, *self.strides, 0) < 0 or size > numbers.size:
            raise ValueError("a tensor with another shape than its storage")
        if size and self.offset + reach >= numbers.size:
            raise ValueError("a tensor beyond its storage")
        strides = [step * numbers.itemsize for step in self.strides]
        part = numbers[self.offset :] if size else numbers[:0]
        return np.lib.stride_tricks.as_strided(part, self.shape, strides).copy()


class _StateDict(dict):
    """A dict in place of `OrderedDict`; attributes such as a module's `_metadata` are dropped."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
    integers = (offset, *shape, *strides)
    if not isinstance(storage, _Storage) or not all(type(value) is int for value in integers):
        raise TypeError("a tensor without a storage, or of no whole numbers")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise TypeError("a parameter that is no tensor")
    return tensor


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "collections.OrderedDict": _StateDict,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
}
_DTYPES = {
    "torch.FloatStorage": FLOATING["float32"],
    "torch.HalfStorage": FLOATING["float16"],
    "torch.BFloat16Storage": FLOATING["bfloat16"],
    "torch.DoubleStorage": FLOATING["float64"],
    "torch.LongStorage": np.dtype(np.int64),
    "torch.IntStorage": np.dtype(np.int32),
    "torch.BoolStorage": np.dtype(np.bool_),
}


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors, storages and plain data, and imports nothing."""

    def find_class(self, module: str, name: str) -> Any:
        """Return the function or storage type of that name; raises `_RefusedError` for others."""
        full_name = f"{module}.{name}"
        if full_name in _DTYPES:
            return full_name
        if full_name not in _FUNCTIONS:
            raise _RefusedError(f"names {full_name}")
        # A new object each time, as a pickle can set attributes of what it names.
        return functools.partial(_FUNCTIONS[full_name])

    def persistent_load(self, pid: Any) -> _Storage:
        """Return a storage: ("storage", type, key, device, count), in legacy files also a view."""
        kind, dtype, key, _, count, *view = pid
        if kind != "storage" or dtype not in _DTYPES or any(view) or type(count) is not int:
            raise ValueError("a storage of an unknown kind")
        if not isinstance(key, str | int):
            raise ValueError("a storage without a key")
        return _Storage(_DTYPES[dtype], str(key), count)


def unpickle(stream: BinaryIO) -> Any:
    """Load the pickle at the stream's position and leave the stream behind its end.

    Raises:
        ValueError, LookupError, TypeError, AttributeError, pickle.UnpicklingError, EOFError: it
            is damaged, or asks for what tensors don't need (a `ValueError` whose message says so).
    """
    start = stream.tell()
    _check_instructions(stream)
    end = stream.tell()
    stream.seek(start)
    return _TensorUnpickler(io.BytesIO(stream.read(end - start))).load()


def _check_instructions(stream: BinaryIO) -> None:
    """Check that a pickle has only instructions that `torch.save` writes, and reads on to its end.

    Python's unpickler knows more of them, fills memory up to any number that a value is to be kept
    under, and hashes without end what `_SHARED` leaves out.
    """
    memo: dict[int, str] = {}  # by number, the instruction that made the value
    maker = ""
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in _INSTRUCTIONS:
            raise _RefusedError(f"uses the pickle instruction {opcode.name}")
        if opcode.name in _PUTS:
            number = len(memo) if opcode.name == "MEMOIZE" else int(argument or 0)
            if number > len(memo):
                raise ValueError(f"value {number} of {len(memo)}")
            memo[number] = maker
            continue
        if opcode.name in _GETS and memo.get(int(argument or 0)) not in _SHARED:
            raise ValueError("a value that is used again")
        maker = opcode.name


def read(file: Path) -> dict[str, np.ndarray]:
    """Return the tensors of a state dict by name, in their own types.

    Raises:
        UserError: the file is none that `torch.save` writes of a state dict, is damaged, or its
            pickle asks for anything but tensors.
    """
    with open_regular_file(file) as stream:
        start = stream.read(len(_ZIP))
        stream.seek(0)
        if not start.startswith((_ZIP, _PICKLE)):
            raise wrong_format_error(WeightsFile(file), _FORMAT, f"is not {_FORMAT}")
        try:
            if start.startswith(_ZIP):
                return _read_zip(stream)
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _read_legacy(cast(BinaryIO, data))
        except _RefusedError as error:
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
        tensors = unpickle(io.BytesIO(_entry(archive, pickles[0])))
        return _arrays(tensors, lambda storage: _entry(archive, f"{folder}data/{storage.key}"))


def _entry(archive: zipfile.ZipFile, name: str) -> bytes:
    """Return an entry's bytes; a compressed one could be of any size, torch never compresses."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise ValueError(f"{name} is compressed")
    return archive.read(name)


def _read_legacy(data: BinaryIO) -> dict[str, np.ndarray]:
    if unpickle(data) != _MAGIC:
        raise ValueError("a pickle, but not torch's")
    unpickle(data)  # the version
    _check_order(unpickle(data)["little_endian"])
    tensors = unpickle(data)
    storages = {tensor.storage.key: tensor.storage for tensor in _checked(tensors).values()}
    contents = {}
    for key in unpickle(data):
        (count,) = struct.unpack("<q", data.read(8))
        contents[key] = data.read(max(count, 0) * storages[key].dtype.itemsize)
    return _arrays(tensors, lambda storage: contents[storage.key])


def _check_order(little: bool) -> None:
    if not little:
        raise ValueError("its bytes are in big-endian order")


def _checked(tensors: Any) -> dict[str, _Tensor]:
    """Return the content of a pickle if it is a state dict; raises `ValueError`."""
    if not isinstance(tensors, dict) or not tensors:
        raise ValueError("it holds no dict of tensors")
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise ValueError("it has an entry without a name")
        if not isinstance(tensor, _Tensor):
            raise ValueError(f"its entry {name} is no tensor")
    return tensors


def _arrays(tensors: Any, content: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
    """Return every tensor's numbers; `content` gives a storage's bytes."""
    arrays = {}
    for name, tensor in _checked(tensors).items():
        storage = tensor.storage
        data = content(storage)
        if len(data) != storage.count * storage.dtype.itemsize:
            raise ValueError(f"{name} has {len(data)} bytes")
        arrays[name] = tensor.view(np.frombuffer(data, storage.dtype))
    return arrays


def state_dict_bytes(tensors: Mapping[str, Any]) -> bytes:
    """Return the content of a file from which `torch.load` gets float32 tensors by name.

    The pickle's instructions are written one by one, since Python's own pickler would have to
    import what they name.
    """
    arrays = {name: np.asarray(array, "<f4", order="C") for name, array in tensors.items()}
    items = (_text(name) + _call(str(key), a) for key, (name, a) in enumerate(arrays.items()))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # uncompressed, as PyTorch maps it
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + b"".join(items) + b"u.")
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


def _call(key: str, array: np.ndarray) -> bytes:
    """Return the call of `_rebuild_tensor_v2` for an array that is all of the storage `key`."""
    place = (_text("storage"), b"ctorch\nFloatStorage\n", _text(key), _text("cpu"))
    storage = _tuple(*place, _integer(array.size)) + b"Q"
    shape = _tuple(*map(_integer, array.shape))
    strides = _tuple(*(_integer(step // array.itemsize) for step in array.strides))
    no_gradient, no_hooks = b"\x89", b"ccollections\nOrderedDict\n)R"
    arguments = _tuple(storage, _integer(0), shape, strides, no_gradient, no_hooks)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _integer(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"
