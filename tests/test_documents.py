"""What the documents say works: files they name exist, the README's examples run."""

import re
import shlex
from pathlib import Path

import pytest

from dsd_jax.score import main as score

ROOT = Path(__file__).parents[1]


def code_blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text("utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/findings.md"]
)
def test_documents_name_files_that_exist(document):
    text = (ROOT / document).read_text("utf-8")
    links = [(ROOT / document).parent / x for x in re.findall(r"\]\(([^)#]+)\)", text)]
    links += [
        ROOT / x for x in re.findall(r"`((?:dsd_jax|configs|launch|tests|docs)/[\w./-]*\w)`", text)
    ]
    missing = [str(x) for x in links if ":/" not in str(x) and not x.exists()]
    assert missing == []


def test_python_example_runs(monkeypatch, capsys):
    (example,) = code_blocks("python")
    assert len(example.splitlines()) < 30
    monkeypatch.chdir(ROOT)
    exec(compile(example, "README.md", "exec"), {})
    assert len(capsys.readouterr().out.splitlines()) == 6  # five methods, and the maps


def test_command_line_example_runs(monkeypatch, capsys):
    (command,) = [block for block in code_blocks("bash") if "docs/cat-left.png" in block]
    python, module, name, *arguments = shlex.split(command.replace("\\\n", " "))
    assert (python, module, name) == ("python", "-m", "dsd_jax.score")
    monkeypatch.chdir(ROOT)
    score(arguments)
    assert "cat-left.png" in capsys.readouterr().out
