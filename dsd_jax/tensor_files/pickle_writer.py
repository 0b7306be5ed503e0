"""A file as `torch.save` writes it, made without PyTorch; `pickle_file` has the format.

The pickle's instructions are written one by one, since Python's own pickler would have to import
what they name.
"""

import io
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

_NO_HOOKS = b"ccollections\nOrderedDict\n)R"
_FALSE = b"\x89"


def state_dict(tensors: Mapping[str, np.ndarray]) -> bytes:
    """The content of a file from which `torch.load` gets float32 tensors by name."""
    arrays = {name: np.asarray(array, "<f4", order="C") for name, array in tensors.items()}
    items = (_text(name) + _tensor(str(key), a) for key, (name, a) in enumerate(arrays.items()))
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:  # uncompressed, as PyTorch maps it
        archive.writestr("archive/data.pkl", b"\x80\x02}(" + b"".join(items) + b"u.")
        archive.writestr("archive/byteorder", "little")
        for key, array in enumerate(arrays.values()):
            archive.writestr(f"archive/data/{key}", array.tobytes())
        archive.writestr("archive/version", "3\n")
    return content.getvalue()


def _tensor(key: str, array: np.ndarray) -> bytes:
    """A call of `_rebuild_tensor_v2` with the storage `key`, all of it."""
    place = (_text("storage"), b"ctorch\nFloatStorage\n", _text(key), _text("cpu"))
    storage = _tuple(*place, _number(array.size)) + b"Q"
    shape = _tuple(*map(_number, array.shape))
    strides = _tuple(*(_number(step // array.itemsize) for step in array.strides))
    arguments = _tuple(storage, _number(0), shape, strides, _FALSE, _NO_HOOKS)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _number(number: Any) -> bytes:
    return b"J" + struct.pack("<i", number)


def _tuple(*parts: bytes) -> bytes:
    return b"(" + b"".join(parts) + b"t"
