"""Flax's msgpack: read as Flax reads it, an array at a time, and files that lie are refused."""

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_restore

from dsd_jax.errors import UserError
from dsd_jax.tensor_files import msgpack_file

PARAMS = {
    "b": {"kernel": np.arange(6, dtype=ml_dtypes.bfloat16).reshape(2, 3), "s": np.array(3.0)},
    "a": {"empty": np.zeros((0, 3), np.float16), "large": np.arange(90_000.0).reshape(300, 300)},
}


def test_what_is_written(tmp_path):
    file = tmp_path / "x.msgpack"
    msgpack_file.write(file, PARAMS)
    tensors, restored = msgpack_file.read_header(file), msgpack_restore(file.read_bytes())
    assert set(tensors) == {"b/kernel", "b/s", "a/empty", "a/large"}
    for name, tensor in tensors.items():
        module, leaf = name.split("/")
        for expected in (PARAMS[module][leaf], restored[module][leaf]):
            assert tensor.shape == expected.shape and tensor.dtype == expected.dtype.name
            np.testing.assert_array_equal(tensor.read(), expected)


def test_truncated(tmp_path):
    file = tmp_path / "x.msgpack"
    msgpack_file.write(file, PARAMS)
    content = file.read_bytes()
    for end in (1, 2, 5, 20, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:end])
        with pytest.raises(UserError, match=f"x.msgpack is cut off after {end:,} bytes; fetch it"):
            msgpack_file.read_header(file)


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
        b"\x81\xa1a" + b"\x91" * 3_000,
        flax(b"\x91\x01", bytes(4)) + b"1",  # something behind it
        b"\xdf\xff\xff\xff\xff",  # lengths of 4 GiB: of a map, a list, an array, a name
        b"\x81\xa1a\xdd\xff\xff\xff\xff",
        b"\x81\xa1a\xc9\xff\xff\xff\xff\x01",
        b"\x81\xdb\xff\xff\xff\xff",
        b"\x81\xa1a\xd6\xff1111",  # a time
        b"\x81\xa1a\xc7\x05\x01\xdd\xff\xff\xff\xff",
    ],
)
def test_msgpack_that_lies(tmp_path, content):
    (tmp_path / "x.msgpack").write_bytes(content)
    with pytest.raises(UserError, match=r"x.msgpack is (not a Flax checkpoint|cut off)"):
        msgpack_file.read_header(tmp_path / "x.msgpack")


def test_msgpack_that_does_not(tmp_path):
    (tmp_path / "x.msgpack").write_bytes(flax(b"\x91\x01", np.float32(3).tobytes()))
    assert msgpack_file.read_header(tmp_path / "x.msgpack")["a"].read() == [3]
