"""Shells complete commands, options, configs and files by the script that the program prints."""

import builtins
import subprocess
from pathlib import Path

import pytest

from dsd_jax.completion import SHELLS, main
from dsd_jax.errors import UserError

TRY = """
source {script}
COMP_WORDS=(dsd-jax {words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
_shtab_dsd_jax dsd-jax "${{COMP_WORDS[-1]}}"
echo "${{COMPREPLY[*]}}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("completion") / "dsd-jax.bash"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as output:
        patch.setattr("sys.stdout", output)
        main(["bash"])
    return file


@pytest.mark.parametrize(
    ("words", "completed"),
    [
        ("sc", "score"),
        ("score --timest", "--timesteps"),
        ("train --config pretrain_", "pretrain_clip pretrain_tiny"),
        ("cache cl", "clean"),
        ("completion f", "fish"),
    ],
)
def test_bash_completes(script, words, completed):
    command = TRY.format(script=script, words=words)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.split() == completed.split(), done.stderr


def test_bash_completes_files(script, tmp_path):
    (tmp_path / "cat.png").touch()
    command = TRY.format(script=script, words=f"score --image {tmp_path}/ca")
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stdout.split() == [f"{tmp_path}/cat.png"]


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell, capsys):
    main([shell])
    assert "dsd-jax" in capsys.readouterr().out


def test_a_missing_package_is_one_sentence(monkeypatch):
    real = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "shtab":
            raise ModuleNotFoundError(name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UserError, match="completion needs the package shtab; install it: pip "):
        main(["bash"])
