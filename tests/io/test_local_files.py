"""Files on this machine: regular ones of limited size, JSON in them, home and cache folders."""

import os
import re
from pathlib import Path

import pytest

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.clip import clip_files
from dsd_jax.conversion.conversion_source import find_source
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import cache_folder, expand, read_json, read_regular_file
from dsd_jax.weights import model_folder


def make(path, kind):
    """Put something of a kind where a file is expected."""
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "dangling":
        path.symlink_to("nowhere")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "large":
        path.write_bytes(b"12345")


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("fifo", "is no regular file; expected a file"),
        ("folder", "is a folder; expected a file"),
        ("missing", "is missing"),
        ("dangling", "is missing, a link to nowhere, which is not there"),
        ("loop", "can't be read"),
        ("large", "has 5 bytes; expected at most 4"),
    ],
)
def test_what_is_no_regular_file_is_said_at_once(tmp_path, kind, sentence):
    make(tmp_path / "x", kind)
    with pytest.raises(UserError, match=re.escape(sentence)):
        read_regular_file(tmp_path / "x", most=4)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[1]", "holds a list, expected a JSON object"),
        ('{"a": NaN}', "NaN is no number in JSON"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("[" * 100_000, "nested too deep"),
        ('{"a": ' + "[" * 200 + "]" * 200 + "}", "nested too deep"),
        ('{"a": 1', "is not JSON"),
        ("version https://git-lfs.github.com/spec/v1", "is a git-lfs pointer"),
    ],
)
def test_what_is_no_json_object_is_one_sentence(tmp_path, content, sentence):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(UserError, match=re.escape(sentence)) as raised:
        read_json(tmp_path / "x.json")
    assert len(str(raised.value)) < 500


def test_json_with_a_byte_order_mark_is_read(tmp_path):
    (tmp_path / "x.json").write_bytes(b'\xef\xbb\xbf{"a": 1}')
    assert read_json(tmp_path / "x.json") == {"a": 1}


@pytest.fixture
def home(monkeypatch, tmp_path) -> Path:
    for name in ("DSD_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_folder_of_caches(home, monkeypatch):
    assert cache_folder() == home / ".cache" / "dsd_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # to be passed over, says its specification
    assert cache_folder() == home / ".cache" / "dsd_jax"
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "x"))
    assert cache_folder() == home / "x" / "dsd_jax"
    monkeypatch.setenv("DSD_CACHE", str(home / "mine"))
    assert cache_folder() == home / "mine"
    monkeypatch.chdir(home)
    monkeypatch.setenv("DSD_CACHE", "mine")
    assert cache_folder() == home / "mine"


def test_paths_are_expanded(home, monkeypatch):
    assert expand("~/a") == home / "a" and expand("a/~") == Path("a/~")
    monkeypatch.setenv("DSD_CACHE", str(home / "mine"))
    assert expand("~/.cache/dsd_jax/encoded") == home / "mine" / "encoded"  # as configs say it
    with pytest.raises(UserError, match="no home folder is known for '~nosuchuser'"):
        expand("~nosuchuser/a")


@pytest.mark.parametrize("find", [model_folder.find, clip_files.find_clip, find_source])
def test_models_in_the_home_of_nobody_are_one_sentence(find):
    with pytest.raises(UserError, match="no home folder is known for '~nosuchuser'"):
        find("~nosuchuser/model")


def test_user_without_a_home(home, monkeypatch):
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    with pytest.raises(UserError, match="no home folder .*; set DSD_CACHE"):
        cache_folder()
    monkeypatch.setenv("DSD_CACHE", str(home))
    assert cache_folder() == home


def test_encodings_of_a_config_follow_the_folder_of_caches(home, monkeypatch, tmp_path):
    from tests.random_model import random_model

    monkeypatch.setenv("DSD_CACHE", str(home / "mine"))
    Encoders(random_model(), "~/.cache/dsd_jax/encoded")
    assert (home / "mine" / "encoded").is_dir() and not (home / ".cache").exists()
