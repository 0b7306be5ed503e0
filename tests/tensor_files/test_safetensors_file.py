"""Safetensors are read as strictly as the library reads them: headers that lie are refused."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.tensor_files import msgpack_file, safetensors_file
from dsd_jax.weights.component_files import read_config, read_headers
from dsd_jax.weights.model_folder import find
from tests.files import replace_by


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


def flax(shape: bytes, content: bytes, dtype: bytes = b"\xa7float32") -> bytes:
    """A checkpoint of one array `a`, whose shape is given as msgpack."""
    inner = b"\x93" + shape + dtype + b"\xc4" + bytes([len(content)]) + content
    return b"\x81\xa1a\xc7" + bytes([len(inner)]) + b"\x01" + inner


@pytest.mark.parametrize(
    "content",
    [
        flax(b"\x92\xff\xff", bytes(4)),  # -1, -1
        flax(b"\x91\xcb" + bytes(8), bytes(0)),  # 0.0
        flax(b"\x91\xa11", bytes(4)),  # "1"
        flax(b"\x91\x02", bytes(4)),  # two numbers in four bytes
        flax(b"\x91\x01", bytes(12)),
        flax(b"\x01", bytes(4)),
        flax(b"\x91\x01", bytes(4), dtype=b"\x91\xa1f"),
        b"\x81\xa1a" * 5_000,
    ],
)
def test_msgpack_that_lies(tmp_path, content):
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(UserError, match=r"x.msgpack is (not a Flax checkpoint|cut off)"):
        msgpack_file.read_header(tmp_path / "x.msgpack")


def test_msgpack_that_does_not(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(flax(b"\x91\x01", np.float32(3).tobytes()))
    assert msgpack_file.read_header(tmp_path / "x.msgpack")["a"].read() == [3]


@pytest.fixture
def unet(tmp_path):
    """A folder with a config and weights of a UNet that nobody reads further than the header."""
    part = tmp_path / "model" / "unet"
    part.mkdir(parents=True)
    (part / "config.json").write_text("{}")
    save_file({"a": np.zeros(3, np.float32)}, part / "diffusion_pytorch_model.safetensors")
    return part


@pytest.mark.parametrize("kind", ["fifo", "folder", "link", "loop"])
@pytest.mark.parametrize("name", ["config.json", "diffusion_pytorch_model.safetensors"])
def test_files_that_are_none(unet, name, kind):
    replace_by(unet / name, kind)
    with pytest.raises(UserError) as error:
        read_headers(unet, UNET)
        read_config(unet.parent, UNET)
    said = {"fifo": "is no regular file", "folder": "is a folder", "link": "is missing, a link to"}
    assert f"{unet / name} {said.get(kind, 'can')}" in str(error.value)


@pytest.mark.parametrize("shard", ["x" * 300, "../../etc/passwd", "/etc/passwd", ""])
def test_an_index_that_names_no_file_beside_it(unet, shard):
    file = unet / "diffusion_pytorch_model.safetensors"
    file.unlink()
    index = file.with_name(f"{file.name}.index.json")
    index.write_text(json.dumps({"weight_map": {"a": shard}}))
    with pytest.raises(UserError, match=r"is missing, though .*index.json names it"):
        read_headers(unet, UNET)


@pytest.mark.parametrize("where", ["x" * 5000, "a\0b", "~nosuchuser/model"])
def test_names_that_no_folder_can_have(where):
    with pytest.raises(UserError, match="can't be read|no home folder"):
        find(where)
