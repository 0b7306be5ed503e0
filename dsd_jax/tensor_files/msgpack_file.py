"""Flax's msgpack: nested maps whose leaves are arrays, each an extension of type 1.

Format: `flax/serialization.py`; an array is the msgpack of (shape, dtype name, bytes). Flax's own
reader unpacks the whole file into memory, this one only walks over it.
"""

import math
import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from dsd_jax.tensor_files.stored_tensor import FLOATING, Stored, WeightsFile, not_weights

_ARRAY = 1
_FORM = "Flax msgpack"
# How many bytes follow a type's code to give a length (msgpack's specification).
_MAPS = {0xDE: 2, 0xDF: 4}
_STRINGS = {0xD9: 1, 0xDA: 2}
_EXTENSIONS = {0xC7: 1, 0xC8: 2, 0xC9: 4}
_LENGTHS = 2, 3, 5  # of what stands before a piece of bytes
_DEEPEST = 100  # maps inside each other
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}


class _TruncatedError(ValueError):
    """The file ends within something."""


def read_header(file: Path) -> dict[str, Stored]:
    """Names, shapes and types of all arrays; `UserError` where the file is broken or another."""
    opened = WeightsFile(file)
    if not opened.size:
        raise not_weights(opened, _FORM, "is empty")
    with opened.map() as data:
        walk = _Walk(opened, data)
        try:
            leaves = {leaf.name: leaf for leaf in walk.leaves()}
            if walk.at != len(data):
                raise ValueError("bytes after the last array")
            return leaves
        except _TruncatedError as error:
            raise not_weights(
                opened, _FORM, f"is cut off after {len(data):,} bytes; fetch it again"
            ) from error
        except (ValueError, LookupError, TypeError, msgpack.UnpackException) as error:
            raise not_weights(
                opened,
                _FORM,
                "is not a Flax checkpoint; fetch it again, or convert it to safetensors",
            ) from error


class _Walk:
    """A position in the file and what can stand there."""

    def __init__(self, file: WeightsFile, data: mmap.mmap):
        self.file, self.data, self.at = file, data, 0

    def take(self, count: int) -> int:
        """Goes on by `count` bytes and returns where they began."""
        begin, self.at = self.at, self.at + count
        if self.at > len(self.data):
            raise _TruncatedError
        return begin

    def number(self, count: int) -> int:
        begin = self.take(count)
        return int.from_bytes(self.data[begin : self.at], "big")

    def leaves(self, prefix: str = "") -> Iterator[Stored]:
        """The arrays of the map that begins here and of those within."""
        if prefix.count("/") > _DEEPEST:
            raise ValueError("maps nested too deep")
        code = self.number(1)
        count = code & 0x0F if code & 0xF0 == 0x80 else self.number(_MAPS[code])
        for _ in range(count):
            name = prefix + self.string()
            code = self.data[self.take(1)]
            if code in _EXTENSIONS or code in _FIXED_EXTENSIONS:
                yield self.array(name, code)
            elif code & 0xF0 == 0x80 or code in _MAPS:
                self.at -= 1
                yield from self.leaves(name + "/")
            else:
                raise ValueError(f"{name} is neither an array nor a map")

    def string(self) -> str:
        code = self.number(1)
        count = code & 0x1F if code & 0xE0 == 0xA0 else self.number(_STRINGS[code])
        begin = self.take(count)
        return self.data[begin : self.at].decode()

    def array(self, name: str, code: int) -> Stored:
        """The array whose extension's `code` was just read. Its bytes are the last thing in it."""
        length = _FIXED_EXTENSIONS.get(code) or self.number(_EXTENSIONS[code])
        if self.number(1) != _ARRAY:
            raise ValueError(f"{name} is not an array")
        begin = self.take(length)
        front = msgpack.Unpacker()
        front.feed(self.data[begin : min(begin + 256, self.at)])
        parts, shape, dtype = front.read_array_header(), front.unpack(), front.unpack()
        sizes = isinstance(shape, list) and all(type(n) is int and n >= 0 for n in shape)
        if parts != 3 or not sizes or not isinstance(dtype, str):
            raise ValueError(f"{name} has the shape {shape}")
        bytes_ = math.prod(shape) * FLOATING[dtype].itemsize if dtype in FLOATING else 0
        # Between shape and dtype and the numbers stands nothing but how many bytes these are.
        if dtype in FLOATING and length - front.tell() - bytes_ not in _LENGTHS:
            raise ValueError(f"{name} has {length} bytes for the shape {shape}")
        return Stored(self.file, name, tuple(shape), dtype, self.at - bytes_, flax=True)


def write(file: Path, tree: Mapping[str, Any]) -> None:
    """Writes the arrays of `tree`, whose keys are paths such as `a_0/kernel`, as nested maps.

    They are arrays, or have `__array__`, which is called for one at a time.
    """
    nested: dict = {}
    for path, array in tree.items():
        *parents, leaf = path.split("/")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = array
    with file.open("wb") as stream:
        for piece in _pieces(nested, msgpack.Packer()):
            stream.write(piece)


def _pieces(node: Any, packer: msgpack.Packer) -> Iterator[bytes]:
    if not isinstance(node, Mapping):
        array = np.asarray(node)
        content = (array.shape, array.dtype.name, array.tobytes())
        yield packer.pack(msgpack.ExtType(_ARRAY, msgpack.packb(content)))
        return
    yield packer.pack_map_header(len(node))
    for name, child in node.items():
        yield packer.pack(name)
        yield from _pieces(child, packer)
