"""The disk cache of encodings: an entry is found by all that it depends on."""

import os

import numpy as np
import pytest

from dsd_jax.benchmarks.encoding_cache import EncodingCache
from dsd_jax.errors import UserError

PARAMS = {"kernel": np.arange(6, dtype=np.float32)}


class Encoder:
    """An encoder that records the indices it is asked for."""

    def __init__(self):
        self.asked = []

    def __call__(self, numbers):
        self.asked += numbers
        return np.array([[number, 0.5] for number in numbers], np.float32)


def test_rows_are_computed_once(tmp_path):
    encoder = Encoder()
    first = EncodingCache(tmp_path / "new", PARAMS, "64").rows([b"a", b"b", b"a"], encoder)
    np.testing.assert_array_equal(first, [[0, 0.5], [1, 0.5], [0, 0.5]])
    assert encoder.asked == [0, 1]
    again = EncodingCache(tmp_path / "new", PARAMS, "64").rows([b"c", b"a"], encoder)
    np.testing.assert_array_equal(again, [[0, 0.5], [0, 0.5]])
    assert encoder.asked == [0, 1, 0] and again.dtype == np.float32


@pytest.mark.parametrize(
    ("params", "preparation"),
    [({"kernel": PARAMS["kernel"] + 1}, "64"), ({"kernel": np.arange(6)}, "64"), (PARAMS, "128")],
)
def test_what_rows_depend_on_is_in_their_names(tmp_path, params, preparation):
    encoder = Encoder()
    EncodingCache(tmp_path, PARAMS, "64").rows([b"a"], encoder)
    EncodingCache(tmp_path, params, preparation).rows([b"a"], encoder)
    assert encoder.asked == [0, 0]


@pytest.mark.parametrize("kept", [-3, 6, 0])
def test_entries_cut_short_are_computed_again(tmp_path, kept):
    encoder = Encoder()
    EncodingCache(tmp_path, PARAMS, "64").rows([b"a"], encoder)
    (file,) = tmp_path.glob("*/*.npy")
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.warns(UserWarning, match="1 of 1 entries"):
        found = EncodingCache(tmp_path, PARAMS, "64").rows([b"a"], encoder)
    np.testing.assert_array_equal(found, [[0, 0.5]])
    np.testing.assert_array_equal(
        EncodingCache(tmp_path, PARAMS, "64").rows([b"a"], encoder), found
    )
    assert encoder.asked == [0, 0]


def test_damaged_entries_are_computed_again_and_said_once(tmp_path):
    """Flipped bits, another entry's content and other types are noticed."""
    encoder = Encoder()
    names = [bytes([i]) for i in range(5)]
    EncodingCache(tmp_path, PARAMS, "64").rows(names, encoder)
    files = sorted(tmp_path.glob("*/*.npy"))
    flipped = bytearray(files[0].read_bytes())
    flipped[-35] ^= 1  # the last number
    files[0].write_bytes(flipped)
    files[1].write_bytes(files[2].read_bytes())
    np.save(files[3], np.zeros(7))
    cache = EncodingCache(tmp_path, PARAMS, "64")
    with pytest.warns(UserWarning, match=r"^cache: 3 of 5 entries in .* are damaged; such") as told:
        again = cache.rows(names, encoder)
    assert len(told) == 1 and len(encoder.asked) == 5 + 3
    np.testing.assert_array_equal(again[:, 1], np.full(5, 0.5))
    files[4].write_bytes(b"nothing")
    cache.rows(names, encoder)  # a second warning would be an error
    assert len(encoder.asked) == 5 + 4
    np.testing.assert_array_equal(EncodingCache(tmp_path, PARAMS, "64").rows(names, None), again)


def test_a_disk_that_takes_no_more_costs_nothing_but_time(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    encoder = Encoder()
    for _ in range(2):
        found = EncodingCache(tmp_path, PARAMS, "64").rows([b"a"], encoder)
        np.testing.assert_array_equal(found, [[0, 0.5]])
    assert encoder.asked == [0, 0] and not list(tmp_path.glob("*/*"))


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cache: .*file/there cannot be written to"):
        EncodingCache(tmp_path / "file" / "there", PARAMS, "64")
