"""The program: `dsd-jax COMMAND`, help, mistakes, and how quickly it answers."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dsd_jax.__main__ import COMMANDS, main
from dsd_jax.cli import as_started
from dsd_jax.errors import UserError

ROOT = Path(__file__).parents[1]


def run(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "dsd_jax", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def test_without_a_command_it_lists_them():
    shown, asked = run(), run("--help")
    assert shown.returncode == 0 and shown.stdout == asked.stdout
    lines = [line.split(maxsplit=1) for line in shown.stdout.splitlines()]
    assert all([name, purpose] in lines for name, purpose in COMMANDS.items())
    assert max(map(len, shown.stdout.splitlines())) <= 90
    assert run("--version").stdout.startswith("dsd_jax 0.")


def test_every_command_is_listed_and_has_a_parser():
    """Those in files at the top, which have a main function, and no others."""
    files = {path.stem for path in ROOT.glob("dsd_jax/*.py") if "def main(" in path.read_text()}
    assert files - {"__main__"} == set(COMMANDS)
    assert all(importlib.import_module(f"dsd_jax.{name}").make_parser() for name in COMMANDS)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("scor", "there is no command 'scor'; did you mean score[?] Expected one of score, train"),
        ("frobnicate", "there is no command 'frobnicate'; Expected one of score, train"),
        ("--frobnicate", "unrecognized arguments: --frobnicate; see "),
    ],
)
def test_a_mistake_is_one_sentence(argument, message):
    with pytest.raises(UserError, match=message):
        main([argument])


def test_arguments_go_to_the_command(capsys):
    with pytest.raises(UserError, match="--timesteps=0 should be from 1 to 1000"):
        main(["score", "--image", "a.png", "--caption", "a cat", "--timesteps=0"])


@pytest.mark.parametrize(
    ("program", "shown"),
    [
        ("/usr/bin/dsd-jax", "dsd-jax score"),
        ("C:/python/Scripts/dsd-jax.exe", "dsd-jax score"),
        ("/somewhere/dsd_jax/__main__.py", "python -m dsd_jax score"),
        ("/somewhere/dsd_jax/score.py", "python -m dsd_jax.score"),
    ],
)
def test_hints_name_what_was_typed(monkeypatch, program, shown):
    monkeypatch.setattr(sys, "argv", [program, "score"])
    assert as_started("score") == shown
    assert as_started("") == shown.removesuffix("score").rstrip(" .")


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["cache", "--help"]])
def test_help_is_quick(arguments):
    def seconds() -> float:  # of the processor: other tests may run beside this one
        before = os.times()
        run(*arguments)
        after = os.times()
        return after.children_user + after.children_system - sum(before[2:4])

    assert min(seconds() for _ in range(3)) < 0.5
