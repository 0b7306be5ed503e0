"""Read and write safetensors: eight bytes of length, a JSON header, then the tensors' bytes.

Format: https://huggingface.co/docs/safetensors. The header is read here rather than with the
library because at first only names and shapes are needed, and later views of the mapped file.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import ConfigDict, Field
from safetensors import SafetensorError
from safetensors.numpy import save_file

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import json_object
from dsd_jax.io.terminal import printable
from dsd_jax.io.validation import Checked, List, parse
from dsd_jax.tensor_files.stored_tensor import (
    FLOATING,
    StoredTensor,
    WeightsFile,
    wrong_format_error,
)

_FORMAT = "safetensors"
TYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
_INTEGERS = {"I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64", "U8": "uint8"}
# Bytes per number; the lengths of other types, such as those of 4 bits, are not checked.
_BYTES = {name: FLOATING[type_].itemsize for name, type_ in TYPES.items()}
_BYTES |= dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0"), 1)
_BYTES |= {"I16": 2, "U16": 2, "I32": 4, "U32": 4, "I64": 8, "U64": 8, "C64": 8}
_MAX_HEADER = 100_000_000  # bytes, as in the library
_Size = Annotated[int, Field(ge=0, lt=2**63)]


class _Entry(Checked):
    """The header's entry of one tensor."""

    model_config = ConfigDict(extra="ignore")

    dtype: str
    shape: Annotated[List[_Size], Field(max_length=16)]
    data_offsets: Annotated[List[_Size], Field(min_length=2, max_length=2)]


@dataclass(frozen=True)
class Header:
    """The parsed header of a file.

    Attributes:
        tensors: each tensor's entry by name; offsets count from the header's end.
        metadata: texts beside the tensors.
        start: offset in the file at which the tensors' bytes begin.
    """

    tensors: Mapping[str, _Entry]
    metadata: Mapping[str, str]
    start: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """Return names, shapes, types and places of all tensors; raises as `read_tensors`."""
    return read_tensors(file)[0]


def read_tensors(file: Path) -> tuple[dict[str, StoredTensor], Mapping[str, str]]:
    """Return all tensors of a file, unread, and its metadata.

    Raises:
        UserError: the file can't be read, is cut off, damaged, or no safetensors file.
    """
    opened = WeightsFile(file)
    length = int.from_bytes(opened.read(8), "little")
    if opened.size < 9 or opened.read(1, 8) != b"{":
        raise wrong_format_error(opened, _FORMAT, "is not a safetensors file")
    if 8 + length > opened.size:
        raise truncated_error(file, opened.size, 8 + length)
    header = parse_header(opened.read(8 + min(length, _MAX_HEADER + 1)), opened.size, str(file))
    tensors = {
        name: StoredTensor(
            opened,
            name,
            entry.shape,
            TYPES.get(entry.dtype) or _INTEGERS.get(entry.dtype, entry.dtype),
            header.start + entry.data_offsets[0],
            flax=False,
        )
        for name, entry in header.tensors.items()
    }
    return tensors, header.metadata


def parse_header(content: bytes, size: int, where: str) -> Header:
    """Parse the start of a safetensors file, as strictly as the library does.

    Args:
        content: the file's first bytes, at least up to the header's end.
        size: size of the whole file in bytes.
        where: the file's name in messages.

    Raises:
        UserError: it is damaged: no JSON, or tensors overlap, leave gaps or reach beyond the file.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 9 or length > min(_MAX_HEADER, len(content) - 8):
        raise UserError(f"{where} has a damaged safetensors header; fetch it again.")
    try:
        entries = json_object(content[8 : 8 + length], "the header")
        metadata = entries.pop("__metadata__", None) or {}
        if not isinstance(metadata, dict):
            raise UserError("__metadata__ is no object.")
        tensors = {name: parse(_Entry, entry, f"{name}") for name, entry in entries.items()}
        end = _end(tensors)
    except UserError as error:
        reason = printable(str(error)).removesuffix(".")[:200]
        raise UserError(
            f"{where} has a damaged safetensors header ({reason}); fetch it again."
        ) from error
    if 8 + length + end > size:
        raise truncated_error(Path(where), size, 8 + length + end)
    if 8 + length + end < size:
        raise UserError(
            f"{where} has {size - 8 - length - end:,} bytes behind its last tensor, which no "
            "safetensors file has; fetch it again."
        )
    texts = {str(name): text for name, text in metadata.items() if isinstance(text, str)}
    return Header(tensors, texts, 8 + length)


def _end(tensors: Mapping[str, _Entry]) -> int:
    """Return where the last tensor ends; raises `UserError` for wrong offsets."""
    end = 0
    for name, entry in sorted(tensors.items(), key=lambda item: tuple(item[1].data_offsets)):
        begin, after = entry.data_offsets
        if begin != end or after < begin:
            raise UserError(f"{name} is at bytes {begin} to {after}, expected to begin at {end}.")
        itemsize = _BYTES.get(entry.dtype)
        if itemsize is not None and after - begin != math.prod(entry.shape) * itemsize:
            raise UserError(
                f"{name} has {after - begin} bytes for the shape {entry.shape} of {entry.dtype}."
            )
        end = after
    return end


def truncated_error(file: Path, size: int, expected: int) -> UserError:
    """Return the error for a file that ends too early."""
    return UserError(
        f"{file} is cut off: it has {size:,} bytes and should have at least {expected:,}; "
        "fetch it again."
    )


def write(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write arrays by name, with the note that transformers expects of files in PyTorch's layout.

    Raises:
        OSError: there is no room, or writing is not allowed.
    """
    file.touch()
    mode = file.stat().st_mode  # the library makes a file that its owner alone can read
    arrays = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    try:
        save_file(arrays, file, metadata={"format": "pt"})
    except SafetensorError as error:
        raise OSError(str(error)) from error
    file.chmod(mode)
