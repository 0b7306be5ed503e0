"""The notebook for Colab is what its source gives, and installs what its runtime needs."""

import importlib.metadata
import os
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest

from tests.notebook import NOTEBOOK, as_text, fill_in, read_source, tagged

ROOT = NOTEBOOK.parents[1]
ADDRESS = "git+https://example.invalid/dsd_jax"


def test_the_notebook_is_what_its_source_gives():
    made = as_text(read_source())
    assert NOTEBOOK.read_text("utf-8") == made, "run python -m tests.notebook"
    nbformat.validate(nbformat.reads(made, as_version=4))


def test_the_badge_opens_this_notebook():
    first = read_source().cells[0].source
    place = NOTEBOOK.relative_to(ROOT).as_posix()
    assert f"https://colab.research.google.com/github/OWNER/dsd_jax/blob/main/{place})" in first


@pytest.fixture
def cell(monkeypatch, tmp_path):
    """The names of the install cell, run where there is nothing to install; pip writes down."""
    notebook = read_source()
    fill_in(notebook, PACKAGE="")
    names = {}
    exec(compile(tagged(notebook, "install"), "install", "exec"), names)
    calls = []

    def pip(*arguments):
        kept = []
        if "--constraint" in arguments:
            place = arguments.index("--constraint")
            kept = Path(arguments[place + 1]).read_text().split()
            arguments = arguments[:place]
        calls.append((*arguments, *kept))
        return names["succeeds"](arguments, kept), "what pip said"

    monkeypatch.chdir(tmp_path)  # no clone
    monkeypatch.delenv("COLAB_TPU_1VM", raising=False)
    names |= {"PACKAGE": ADDRESS, "pip": pip, "calls": calls, "succeeds": lambda *_: True}
    return names


@pytest.mark.parametrize(
    ("kind", "package"), [("", "jax"), ("cuda12", "jax[cuda12]"), ("tpu", "jax[tpu]")]
)
def test_each_runtime_gets_its_jax_and_keeps_what_is_imported(cell, kind, package):
    cell |= {"accelerator": lambda: kind, "imported": lambda: {"numpy": "2.1.3"}}
    cell |= {"stale_plugins": list}
    cell["importlib"] = versions(numpy="2.1.3")
    assert cell["install"]() is False
    assert cell["calls"] == [("install", ADDRESS, package, "numpy==2.1.3")]


def versions(**found):
    """importlib with these packages installed."""
    packages = [
        SimpleNamespace(name=name.replace("_", "-"), version=v) for name, v in found.items()
    ]
    metadata = SimpleNamespace(
        distributions=lambda: packages, version=lambda name: found[name.replace("-", "_")]
    )
    util = SimpleNamespace(find_spec=lambda name: name in found)
    return SimpleNamespace(metadata=metadata, util=util, invalidate_caches=lambda: None)


def test_a_diffusers_that_is_there_is_made_to_fit(cell):
    cell |= {"accelerator": str, "imported": dict, "importlib": versions(diffusers="0.39.0")}
    cell["install"]()
    assert cell["calls"][1:] == [("install", "--upgrade", "--no-deps", "diffusers")]


def test_what_cannot_be_kept_is_replaced_and_asks_for_a_restart(cell):
    cell |= {"accelerator": str, "imported": lambda: {"numpy": "1.26.4"}, "stale_plugins": list}
    cell |= {"succeeds": lambda _, kept: not kept, "importlib": versions(numpy="2.3.0")}
    assert cell["install"]() is True
    assert cell["calls"] == [
        ("install", ADDRESS, "jax", "numpy==1.26.4"),
        ("install", ADDRESS, "jax"),
    ]


def test_plugins_of_another_version_are_uninstalled(cell):
    cell |= {"accelerator": str, "imported": dict}
    cell["importlib"] = versions(
        jaxlib="0.10.1",
        jax_cuda12_plugin="0.7.2",
        jax_cuda12_pjrt="0.7.2",
        jax_cuda13_plugin="0.10.1",
        jax_privacy="0.1",
        libtpu="0.0.21",
    )
    cell["install"]()
    assert cell["calls"][1:] == [("uninstall", "--yes", "jax-cuda12-pjrt", "jax-cuda12-plugin")]


def test_a_failure_is_said_in_pips_words(cell):
    cell |= {"accelerator": str, "succeeds": lambda *_: False}
    with pytest.raises(SystemExit, match=f"from {re.escape(ADDRESS)}. pip says:\nwhat pip said"):
        cell["install"]()


def test_the_accelerator_is_that_of_the_runtime(cell, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cell["accelerator"]() == ""
    for status, kind in ((9, ""), (0, "cuda12")):  # 9: there is no driver to talk to
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nexit {status}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
        assert cell["accelerator"]() == kind
    monkeypatch.setenv("COLAB_TPU_1VM", "1")
    assert cell["accelerator"]() == "tpu"


def test_in_a_clone_the_clone_is_installed(cell, monkeypatch):
    assert cell["source"]() == ADDRESS
    monkeypatch.chdir(NOTEBOOK.parent)
    assert cell["source"]() == str(ROOT)


def test_what_this_process_has_imported_is_known(cell):
    import PIL  # as Colab's kernel has it

    found = {name: importlib.metadata.version(name) for name in ("numpy", "pillow", "jax")}
    assert cell["imported"]().items() >= found.items()
    assert PIL.__version__ == found["pillow"]


@pytest.mark.parametrize("colab", [True, False])
def test_a_restart_is_the_sessions_or_the_users(monkeypatch, tmp_path, capsys, colab):
    killed = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", ModuleType("colab"))
    notebook = read_source()
    fill_in(notebook, PACKAGE=ADDRESS)
    start, _, end = tagged(notebook, "install").partition('if "/OWNER/"')
    code = (
        f"{start}def install():\n    return True\n\n\nif '/OWNER/'" + end.partition("import jax")[0]
    )
    with pytest.raises(SystemExit, match="Restart the kernel"):
        exec(code.replace("'/OWNER/'", '"/OWNER/"'), {})
    assert killed == ([(os.getpid(), 9)] if colab else [])
    assert "Run all cells again" in capsys.readouterr().out


def test_an_address_that_nobody_entered_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="PACKAGE still says OWNER"):
        exec(tagged(read_source(), "install"), {})


def test_nothing_is_imported_before_it_is_installed():
    code = [cell for cell in read_source().cells if cell.cell_type == "code"]
    before, _, _ = code[0].source.partition("if PACKAGE and install():")
    modules = {
        line.split()[1].split(".")[0] for line in before.split("\n") if line[:7] == "import "
    }
    assert modules <= set(sys.stdlib_module_names)
