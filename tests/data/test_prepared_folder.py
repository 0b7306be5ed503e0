"""Prepared folders: what killed preparations left is deleted, and nothing else."""

import os
import time

import pytest

from dsd_jax.data.prepared_folder import FORGOTTEN_AFTER, marked, prepared, read_prepared
from dsd_jax.errors import UserError


def write(temporary):
    (temporary / "made").mkdir()
    return temporary / "made"


def age(folder):
    long_ago = time.time() - 2 * FORGOTTEN_AFTER
    os.utime(folder, (long_ago, long_ago))


def left_behind(folder):
    """A folder as a killed preparation leaves it."""
    folder.mkdir()
    with marked(folder):
        pass
    age(folder)
    return folder


def test_a_folder_of_a_killed_preparation_is_deleted(tmp_path):
    folder = left_behind(tmp_path / "unfinished-abc")
    prepared(tmp_path, "place", write)
    assert os.listdir(tmp_path) == ["place"] and not folder.exists()


@pytest.mark.parametrize("marker", [None, b"", b"by somebody else"])
def test_folders_of_others_stay(tmp_path, marker):
    folder = tmp_path / "unfinished-paintings"
    folder.mkdir()
    (folder / "cat.png").write_text("mine")
    if marker is not None:
        (folder / ".being-prepared").write_bytes(marker)
    (tmp_path / "unfinished-letter.txt").write_text("mine")
    age(folder)
    prepared(tmp_path, "place", write)
    assert (folder / "cat.png").read_text() == "mine"
    assert (tmp_path / "unfinished-letter.txt").read_text() == "mine"


def test_links_stay(tmp_path):
    left_behind(tmp_path / "elsewhere")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "unfinished-abc").symlink_to(tmp_path / "elsewhere")
    prepared(tmp_path / "data", "place", write)
    assert (tmp_path / "elsewhere").exists()


def test_what_is_being_written_stays_whatever_the_clock_says(tmp_path):
    folder = tmp_path / "unfinished-abc"
    folder.mkdir()
    with marked(folder):
        age(folder)
        prepared(tmp_path, "place", write)
        assert folder.exists()
    age(folder)
    prepared(tmp_path, "another", write)
    assert not folder.exists()


@pytest.mark.parametrize("error", [OSError, ValueError, KeyError, IndexError, RuntimeError])
def test_damage_is_told(tmp_path, error):
    with (
        pytest.raises(
            UserError, match=f"{tmp_path} is damaged .*reason.*: delete it and run again"
        ),
        read_prepared(tmp_path),
    ):
        raise error("reason")


@pytest.mark.parametrize("error", [ImportError, TypeError, AttributeError, AssertionError])
def test_a_bug_is_no_damage(tmp_path, error):
    with pytest.raises(error, match="reason"), read_prepared(tmp_path):
        raise error("reason")


def test_json_of_another_kind_is_damage(tmp_path):
    (tmp_path / "features.json").write_text("null")
    message = "is damaged .*features.json holds a NoneType, expected a JSON object.: delete it"
    with pytest.raises(UserError, match=message), read_prepared(tmp_path):
        pass
