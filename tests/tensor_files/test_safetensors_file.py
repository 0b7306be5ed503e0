"""Safetensors are read as strictly as the library reads them: headers that lie are refused."""

import json
import os

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.errors import UserError
from dsd_jax.tensor_files import safetensors_file


def write(file, header, content: bytes = bytes(8)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + content)
    return file


def entry(begin, end, shape=(1,), dtype="F32") -> dict:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def two(first: dict, second: dict) -> dict:
    return {"a": first, "b": second}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (two(entry(0, 4), entry(0, 4)), "b is at bytes 0 to 4, expected to begin at 4"),
        (two(entry(0, 8, (2,)), entry(4, 8)), "b is at bytes 4 to 8, expected to begin at 8"),
        (two(entry(0, 4), entry(8, 12)), "b is at bytes 8 to 12, expected to begin at 4"),
        (two(entry(4, 0), entry(4, 8)), "a is at bytes 4 to 0, expected to begin at 0"),
        (two(entry(0.0, 4.0), entry(4, 8)), "data_offsets.0 is 0.0, expected a whole number"),
        (two(entry(-4, 0), entry(0, 8, (2,))), "data_offsets.0 is -4, expected 0 or more"),
        (two(entry(0, 4, (1.0,)), entry(4, 8)), "shape.0 is 1.0, expected a whole number"),
        (two(entry(0, 4, (-1, -1)), entry(4, 8)), "shape.0 is -1, expected 0 or more"),
        (two(entry(0, 4, (2,)), entry(4, 8)), "a has 4 bytes for the shape (2,) of F32"),
        (two(entry(0, 4, (10**30,)), entry(4, 8)), "shape.0 is 1000"),
        (two(entry(0, 4, (1,), "I64"), entry(4, 8)), "a has 4 bytes for the shape (1,) of I64"),
        (two(entry(0, 4, (1,), 5), entry(4, 8)), "dtype is 5, expected text"),
        (two(entry(0, 4), entry(4, 6, (1,), "F16")), "2 bytes behind its last tensor"),
        (two(entry(0, 4), None), "b: it is None, expected an object"),
        ({"a": {"dtype": "F32"}}, "a: shape is missing; data_offsets is missing"),
        ({"__metadata__": 5, "a": entry(0, 8, (2,))}, "__metadata__ is no object"),
        (b'{"a": ' + b"[" * 50_000, "nested too deep"),
        (b'{"a": ' + b"9" * 5_000 + b"}", "is not JSON"),
        (b'{"a": NaN}', "NaN is no number"),
        (b"{", "is not JSON"),
    ],
)
def test_headers_that_lie(tmp_path, header, message):
    file = write(tmp_path / "x.safetensors", header)
    with pytest.raises(UserError) as error:
        safetensors_file.read_header(file)
    text = str(error.value)
    assert message in text and str(file) in text and "\n" not in text and len(text) < 500


def test_what_the_library_writes(tmp_path):
    tensors = {"b": np.arange(6.0).reshape(2, 3), "a": np.float16(3), "none": np.zeros((0, 4))}
    tensors = {name: np.asarray(tensor) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    found, metadata = safetensors_file.read_tensors(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt"} and set(found) == set(tensors)
    for name, tensor in tensors.items():
        again = found[name].read()
        np.testing.assert_array_equal(again, tensor)
        assert again.dtype == tensor.dtype and not again.flags.writeable or not again.size


def test_a_file_is_opened_once(tmp_path):
    """What was checked is what is read, although another file takes its name in between."""
    file = tmp_path / "x.safetensors"
    save_file({"a": np.arange(3.0)}, file)
    found = safetensors_file.read_header(file)
    save_file({"a": np.zeros(3)}, tmp_path / "other")
    os.replace(tmp_path / "other", file)
    np.testing.assert_array_equal(found["a"].read(), np.arange(3.0))


def test_files_are_closed(tmp_path):
    save_file({"a": np.arange(3.0)}, tmp_path / "x.safetensors")
    before = len(os.listdir("/proc/self/fd"))
    array = safetensors_file.read_header(tmp_path / "x.safetensors")["a"].read()
    again = len(os.listdir("/proc/self/fd"))
    np.testing.assert_array_equal(array, np.arange(3.0))
    del array
    assert again <= before + 1 and len(os.listdir("/proc/self/fd")) <= before


def test_what_is_written(tmp_path):
    """Any layout in memory; readable for whom other new files are."""
    tensors = {
        "a": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3).T,
        "b": np.array(3, np.float32),
    }
    safetensors_file.write(tmp_path / "x.safetensors", tensors)
    again = safetensors_file.read_header(tmp_path / "x.safetensors")
    for name, tensor in tensors.items():
        assert again[name].shape == tensor.shape and again[name].dtype == tensor.dtype.name
        np.testing.assert_array_equal(again[name].read(), tensor)
    (tmp_path / "other").touch()
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode
    with pytest.raises(OSError, match="No such file"):
        safetensors_file.write(tmp_path / "none" / "x.safetensors", tensors)
