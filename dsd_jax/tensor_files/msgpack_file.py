"""Read and write Flax's msgpack: nested maps whose leaves are arrays, each an extension of type 1.

Format: `flax/serialization.py`; an array is the msgpack of (shape, dtype name, bytes). Flax's own
reader holds the whole file in memory; here the `msgpack` library passes over it one array at a
time, and each array's place is kept to read it later.
"""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgpack
import numpy as np

from dsd_jax.io.local_files import unreadable
from dsd_jax.tensor_files.stored_tensor import (
    FLOATING,
    StoredTensor,
    WeightsFile,
    wrong_format_error,
)

_ARRAY = 1
_FORMAT = "Flax msgpack"
_MAX_AXES = 32
_MAX_DEPTH = 100  # maps inside each other


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return names, shapes, types and places of all arrays.

    The file is passed over once, with about four times its largest array in memory.

    Raises:
        UserError: the file can't be read, is cut off, damaged, or no Flax msgpack.
    """
    opened = WeightsFile(file)
    if not opened.size:
        raise wrong_format_error(opened, _FORMAT, "is empty")
    unpacker = msgpack.Unpacker(opened.stream, max_buffer_size=0, max_array_len=_MAX_AXES)
    try:
        tensors = {tensor.name: tensor for tensor in _tensors(opened, unpacker)}
        if unpacker.tell() != opened.size:
            raise ValueError("bytes after the last array")
        return tensors
    except msgpack.OutOfData as error:
        reason = f"is cut off after {opened.size:,} bytes; fetch it again"
        raise wrong_format_error(opened, _FORMAT, reason) from error
    except OSError as error:
        raise unreadable(file, error) from error
    except (ValueError, LookupError, TypeError, msgpack.UnpackException) as error:
        reason = "is not a Flax checkpoint; fetch it again, or convert it to safetensors"
        raise wrong_format_error(opened, _FORMAT, reason) from error


def _tensors(
    file: WeightsFile, unpacker: msgpack.Unpacker, prefix: str = ""
) -> Iterator[StoredTensor]:
    """Yield the arrays of the map at the unpacker's position and of those within it."""
    if prefix.count("/") > _MAX_DEPTH:
        raise ValueError("maps nested too deep")
    for _ in range(unpacker.read_map_header()):
        name = unpacker.unpack()
        if not isinstance(name, str):
            raise TypeError("a name that is no text")
        code = int.from_bytes(file.read(1, unpacker.tell()), "big")
        if code >> 4 == 0x8 or code in (0xDE, 0xDF):  # a map, by msgpack's specification
            yield from _tensors(file, unpacker, f"{prefix}{name}/")
        else:
            yield _tensor(file, prefix + name, unpacker.unpack(), unpacker.tell())


def _tensor(file: WeightsFile, name: str, value: object, end: int) -> StoredTensor:
    """Return the array of a map's `value`, whose bytes are the last before `end`."""
    if not isinstance(value, msgpack.ExtType) or value.code != _ARRAY:
        raise ValueError(f"{name} is neither an array nor a map")
    shape, dtype, content = msgpack.unpackb(value.data, raw=True)
    if not isinstance(shape, list) or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"{name} has no shape")
    if not isinstance(dtype, bytes) or not isinstance(content, bytes):
        raise TypeError(f"{name} has no type of numbers")
    dtype = dtype.decode()
    if dtype in FLOATING and len(content) != math.prod(shape) * FLOATING[dtype].itemsize:
        raise ValueError(f"{name} has {len(content)} bytes for the shape {shape}")
    return StoredTensor(file, name, tuple(shape), dtype, end - len(content), flax=True)


def write(file: Path, params: Mapping[str, Mapping | np.ndarray]) -> None:
    """Write nested dicts of arrays; they are held in memory twice and more meanwhile."""
    from flax.serialization import msgpack_serialize  # takes a while

    file.write_bytes(msgpack_serialize(params, in_place=True))
