"""Config files: Python files that are run, and one sentence for whatever is wrong with them."""

import importlib.util
import os

import pytest

from dsd_jax.config import config_files
from dsd_jax.config.config_files import load_config, read_config
from dsd_jax.config.pretrain_config import kind_of
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "has no get_config"),
        ("def get_config():\n    return {}", "returned dict, not an ml_collections.ConfigDict"),
        ("x = 1\ndef get_config(:\n", "line 2: "),
        ("def get_config():\n    return 1 / 0", "line 2: ZeroDivisionError"),
        ("import no_such_module", "line 1: ModuleNotFoundError"),
        (
            "raise Exception('a\\nb\\x1b[2J' * 999)",
            r"line 1: Exception: a b\\x1b\[2Ja [^\n]{800,900}\.$",
        ),
        ("import sys\nsys.exit('bye')", "faulty.py, line 2 ends the program; a config file"),
        ("def get_config():\n    raise SystemExit", "faulty.py, line 2 ends the program"),
        ("def get_config(): return 1".encode("utf-16"), "faulty.py is no text in UTF-8"),
        (b"\xff = 1", "faulty.py, line 1: "),
        (b"#" * (2**20 + 1), "faulty.py has 1,048,577 bytes; expected at most 1,048,576"),
        (
            "from ml_collections.config_dict import *\ndef get_config():\n"
            "    return ConfigDict(dict(a=required_placeholder(int)))",
            "faulty.py: a required placeholder has no value",
        ),
    ],
)
def test_faulty_config_file_is_one_sentence(tmp_path, text, message):
    path = tmp_path / "faulty.py"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        load_config(str(path))


@pytest.mark.parametrize(
    ("line", "old", "new"),
    [
        ("from dsd_jax.defaults import run_defaults", "defaults", "config.defaults"),
        ("from dsd_jax import defaults", "defaults", "config.defaults"),
        ("import dsd_jax.sharding", "sharding", "distributed.sharding"),
        ("from dsd_jax.recipe import Recipe", "recipe", "config.recipes"),
        ("from dsd_jax.configuration import load_config", "configuration", "config.config_files"),
    ],
)
def test_a_config_that_imports_a_moved_module_is_told_its_new_name(tmp_path, line, old, new):
    path = tmp_path / "own.py"
    path.write_text(f"x = 1\n{line}\n")
    with pytest.raises(UserError) as refused:
        load_config(str(path))
    sentence = f"line 2: dsd_jax.{old} is now dsd_jax.{new}; import it from there."
    assert str(refused.value) == f"{path}, {sentence}"


@pytest.mark.parametrize("name", ["nowhere", "io.nowhere", "config.defaults.nowhere"])
def test_other_modules_that_are_missing_are_named_as_they_are(tmp_path, name):
    path = tmp_path / "own.py"
    path.write_text(f"import dsd_jax.{name}")
    with pytest.raises(UserError, match=f"ModuleNotFoundError: No module named 'dsd_jax.{name}'"):
        load_config(str(path))


def test_renamed_modules_exist():
    assert all(importlib.util.find_spec(name) for name in config_files._RENAMED.values())


def test_config_path_that_is_no_file(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(UserError, match="missing.py does not exist"):
        load_config(f"{tmp_path}/missing.py:arg")
    with pytest.raises(UserError, match="is a folder"):
        load_config(str(tmp_path))
    with pytest.raises(UserError, match="not a Python file"):
        load_config(f"{tmp_path}/notes.txt")
    with pytest.raises(UserError, match="can't be read .File name too long"):
        load_config(f"{tmp_path}/{'a' * 300}.py")
    with pytest.raises(UserError, match="a.*py does not exist"):
        load_config("a\0.py")
    os.mkfifo(tmp_path / "fifo.py")
    with pytest.raises(UserError, match="fifo.py is no regular file"):
        load_config(f"{tmp_path}/fifo.py")


def test_a_config_by_name_is_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for spec in ("emoji:full", "configs/emoji.py:full"):
        assert load_config(spec).per_kind == 500
    (tmp_path / "emoji").mkdir()  # of somebody's pictures
    assert load_config("emoji").per_kind == 60
    (tmp_path / "configs").mkdir()
    lines = ("from ml_collections import ConfigDict", "get_config = lambda: ConfigDict({'a': 1})")
    (tmp_path / "configs" / "emoji.py").write_text("\n".join(lines))
    assert load_config("configs/emoji.py").a == 1  # their file, as they said
    assert load_config("emoji").per_kind == 60


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("emojy", "there is no config 'emojy'; did you mean emoji[?] Expected one of classify, "),
        ("emojy:full", "there is no config 'emojy'; did you mean emoji[?]"),
        (
            "frob",
            "there is no config 'frob'; Expected one of .*, or a Python file, whose",
        ),
        ("emoji:fulll", "^emoji: there is no variant 'fulll', expected one of quick, full"),
        ("emoji:", "^emoji: there is no variant '', expected one of quick, full"),
        ("pretrain_tiny:big", "get_config of pretrain_tiny takes no argument, so drop ':big'"),
        ("emoji.py", "config file emoji.py does not exist; did you mean --config=emoji[?]"),
        ("elsewhere/emoji.py", "does not exist; did you mean --config=emoji[?]"),
        ("mine.py", "config file mine.py does not exist; --config takes a Python file, or the n"),
    ],
)
def test_a_name_that_is_none_is_refused_with_those_there_are(spec, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        load_config(spec)


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        (
            RunConfig,
            "pretrain_tiny",
            "^pretrain_tiny is a config of pretrain; give .* name a config of train, ",
        ),
        (
            kind_of,
            "emoji:full",
            "^emoji:full is a config of train, evaluate or plan; give .* config of pretrain",
        ),
    ],
)
def test_a_config_of_another_command_is_called_so(kind, spec, message):
    with pytest.raises(UserError, match=message):
        read_config(kind, spec, [("seed", "1")])
