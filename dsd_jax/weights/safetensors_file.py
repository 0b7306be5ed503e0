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
from safetensors.numpy import save

from dsd_jax.errors import UserError
from dsd_jax.weights.stored import FLOATING, Stored, not_weights

_FORM = "safetensors"
_TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


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


def write(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes `tensors`; transformers wants to be told that they are laid out as PyTorch's."""
    file.write_bytes(save(dict(tensors), metadata={"format": "pt"}))
