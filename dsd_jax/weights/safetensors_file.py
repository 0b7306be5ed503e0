"""Safetensors: eight bytes of length, a JSON header, then the tensors' bytes.

Format: https://huggingface.co/docs/safetensors. The header is read here rather than with the
library because all we want at first is names and shapes, and later views of the mapped file.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.weights.stored import FLOATING, Stored, not_weights

_FORM = "safetensors"
_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_CODES = {name: code for code, name in _TYPES.items()}


def read_header(file: Path) -> dict[str, Stored]:
    """Names, shapes and types of all tensors; `UserError` where the file is broken or another."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        brace = stream.read(1)
        if brace != b"{" or size < 9:
            raise not_weights(file, _FORM, "is not a safetensors file")
        if 8 + length > size:
            raise truncated(file, size, 8 + length)
        text = brace + stream.read(length - 1)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        start = 8 + length
        tensors = {name: _stored(file, name, entry, start) for name, entry in header.items()}
        end = start + max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise not_weights(
            file, _FORM, "has a damaged safetensors header; fetch it again"
        ) from error
    if end > size:
        raise truncated(file, size, end)
    return tensors


def read_metadata(file: Path) -> dict[str, str]:
    """The texts that a file which `read_header` accepts holds beside its tensors."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _stored(file: Path, name: str, entry: Mapping[str, Any], start: int) -> Stored:
    """The header's `entry`; `ValueError` where its length is not that of its shape and type."""
    begin, end = entry["data_offsets"]
    shape = tuple(entry["shape"])
    dtype = _TYPES.get(entry["dtype"], entry["dtype"])
    if (
        begin < 0
        or dtype in FLOATING
        and end - begin != math.prod(shape) * FLOATING[dtype].itemsize
    ):
        raise ValueError(f"{name} has {end - begin} bytes")
    return Stored(file, name, shape, dtype, start + begin, flax=False)


def truncated(file: Path, size: int, expected: int) -> UserError:
    """The error for a file that ends too early."""
    return UserError(
        f"{file} is cut off: it has {size:,} bytes and should have at least {expected:,}; "
        "fetch it again."
    )


def write(file: Path, tensors: Mapping[str, Any]) -> None:
    """Writes `tensors`; transformers wants to be told that they are laid out as PyTorch's.

    They are arrays, or have `shape`, `dtype` and `__array__`, which is called for one at a time.
    """
    # The largest numbers first, so that each lies at a multiple of its size.
    names = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name in names:
        shape, dtype = tensors[name].shape, tensors[name].dtype
        begin, end = end, end + math.prod(shape) * dtype.itemsize
        code = _CODES[dtype.name]
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            array = np.ascontiguousarray(tensors[name])
            stream.write(array.reshape(-1).view(np.uint8).data)
