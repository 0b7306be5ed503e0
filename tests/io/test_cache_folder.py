"""Where caches are, and `~` in paths."""

import os
from pathlib import Path

import pytest

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.clip import clip_folder as clip_folder
from dsd_jax.conversion.source import find_source
from dsd_jax.errors import UserError
from dsd_jax.io.cache_folder import cache_folder, expand
from dsd_jax.weights import model_folder as weights_folder


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


@pytest.mark.parametrize("find", [weights_folder.find, clip_folder.find, find_source])
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
