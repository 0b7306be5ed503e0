"""Compiled programs are kept for the next start, and nothing fails where they can't be."""

import os
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path

import jax
import pytest

from dsd_jax.distributed import compiled_programs
from dsd_jax.distributed.compiled_programs import keep_compiled_programs

OPTIONS = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_compilation_cache_max_size",
)
# A program that loads no model, but starts as one that does; prints what it found on disk.
PROGRAM = """
import dsd_jax
dsd_jax.load  # before JAX is imported, as a program would
from dsd_jax.distributed.devices import check_devices
import jax, jax.numpy as jnp
check_devices()
found = []
jax.monitoring.register_event_listener(lambda event, **_: found.append(event))
print(float(jax.jit(lambda x: jnp.sin(x) + 1)(2.0)))
print(sum(event.endswith("cache_hits") for event in found))
"""


def run(folder: Path, **environment: str) -> list[str]:
    """Runs PROGRAM with its caches in a folder; returns its output, and messages if any."""
    own = {"DSD_CACHE": str(folder), "DSD_COMPILATION_CACHE": "1", **environment}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        command, env={**os.environ, **own}, capture_output=True, text=True, check=True
    )
    return [*done.stdout.split(), *done.stderr.splitlines()]


def entries(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("programs/*-cache")}


def test_a_second_start_compiles_nothing_however_small(tmp_path):
    value, hits = run(tmp_path)
    kept = entries(tmp_path)
    assert hits == "0" and kept
    assert run(tmp_path) == [value, str(len(kept))]
    assert entries(tmp_path) == kept


def test_it_can_be_turned_off_and_is_off_for_several_cpu_devices(tmp_path):
    run(tmp_path, DSD_COMPILATION_CACHE="0")
    run(tmp_path, JAX_NUM_CPU_DEVICES="2")
    assert not entries(tmp_path)


@pytest.fixture
def options(monkeypatch, tmp_path):
    """JAX's options on the cache, to be set by a test and as they were afterwards."""
    before = {name: jax.config.values[name] for name in OPTIONS}
    monkeypatch.setenv("DSD_COMPILATION_CACHE", "1")
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    monkeypatch.setenv("DSD_CACHE", str(tmp_path))
    with warnings.catch_warnings():
        yield before
    for name, value in before.items():
        jax.config.update(name, value)


def test_the_folder_is_bounded(options, tmp_path):
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == str(tmp_path / "programs")
    assert jax.config.values["jax_compilation_cache_max_size"] == 2**30


def test_what_the_user_chose_for_jax_stays(options, monkeypatch):
    jax.config.update("jax_compilation_cache_max_size", 2**20)
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_max_size"] == 2**20
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    keep_compiled_programs()
    assert jax.config.values["jax_compilation_cache_dir"] == "elsewhere"


def test_nothing_is_kept_where_there_is_no_place(options, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DSD_CACHE", str(tmp_path / "file"))
    keep_compiled_programs()
    monkeypatch.delenv("DSD_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # nobody's home
    keep_compiled_programs()
    monkeypatch.setenv("DSD_CACHE", str(tmp_path))
    usage = namedtuple("usage", "free")(10**6)
    monkeypatch.setattr(compiled_programs.shutil, "disk_usage", lambda folder: usage)
    keep_compiled_programs()
    assert {name: jax.config.values[name] for name in OPTIONS} == options


def test_halves_of_entries_are_dropped(options, tmp_path):
    """JAX 0.10 writes nothing more into a folder with an entry that has no time of use."""
    folder = tmp_path / "programs"
    folder.mkdir()
    for name in ("jit_a-1-cache", "jit_a-1-atime", "jit_b-2-cache"):
        (folder / name).touch()
    keep_compiled_programs()
    assert sorted(path.name for path in folder.iterdir()) == ["jit_a-1-atime", "jit_a-1-cache"]
