import os

import pytest

from dsd_jax.data.preparation import prepared
from dsd_jax.errors import UserError


def test_written_once_and_whole(tmp_path):
    calls = []

    def write(temporary):
        calls.append(temporary)
        (temporary / "x").mkdir()
        (temporary / "x" / "file").write_text("text")
        return temporary / "x"

    for _ in range(2):
        folder = prepared(tmp_path / "cache", tmp_path.relative_to("/") / "a", write)
        assert (folder / "file").read_text() == "text"
    assert len(calls) == 1 and not calls[0].exists()


def test_a_failure_leaves_nothing(tmp_path):
    def write(temporary):
        (temporary / "file").write_text("half")
        raise UserError("no more")

    with pytest.raises(UserError, match="no more"):
        prepared(tmp_path, tmp_path / "a", write)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_told(tmp_path):
    def write(temporary):
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"Can't write the benchmark into .* \(No space left"):
        prepared(tmp_path, tmp_path / "a", write)
