"""What grows with a data set: stacked in memory or in a file, with the same numbers."""

import os

import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.io import host_arrays


def parts():
    """Three trees with three rows each, the last filled up by a repeated one."""
    rng = np.random.default_rng(0)
    rows = {"a": rng.normal(size=(8, 2)).astype(np.float32), "b": {"c": np.arange(8)}, "d": None}
    for numbers in ([0, 1, 2], [3, 4, 5], [6, 7, 7]):
        yield {"a": rows["a"][numbers], "b": {"c": rows["b"]["c"][numbers]}, "d": None}


def test_stacked():
    found = host_arrays.stacked(parts(), 8)
    assert found["b"]["c"].tolist() == list(range(8)) and found["d"] is None
    assert type(found["a"]) is np.ndarray and found["a"].shape == (8, 2)


def test_large_ones_are_in_a_file_without_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(host_arrays.tempfile, "tempdir", str(tmp_path))
    expected = host_arrays.stacked(parts(), 8)
    monkeypatch.setattr(host_arrays, "IN_MEMORY", 8 * (8 + 8) - 1)
    found = host_arrays.stacked(parts(), 8)
    assert isinstance(found["a"], np.memmap) and not os.listdir(tmp_path)
    np.testing.assert_array_equal(found["a"], expected["a"])
    np.testing.assert_array_equal(found["b"]["c"], expected["b"]["c"])


def test_a_full_disk(monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(host_arrays.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(host_arrays.os, "posix_fallocate", full)
    monkeypatch.setattr(host_arrays, "IN_MEMORY", 0)
    with pytest.raises(UserError, match=f"{tmp_path} has no room for 0.0 GiB .*No space.*TMPDIR"):
        host_arrays.stacked(parts(), 8)
