"""Docstrings say what a thing does, in a sentence that needs no other."""

import ast
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("dsd_jax/**/*.py"))
# A first sentence has a verb and its object, or is "An X that ..."; with these it has neither.
RIDDLES = {"Of", "What", "Those", "Some", "Whether", "Which", "How", "From", "As", "Everything"}


def docstrings(path: Path) -> dict[str, str]:
    """Return {name: docstring} of a module and all that it defines."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    nodes = [("module", module)]
    nodes += [(node.name, node) for node in ast.walk(module) if isinstance(node, kinds)]
    return {name: text for name, node in nodes if (text := ast.get_docstring(node))}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_begin_with_a_verb_or_an_article(path):
    found = {name: text.split("\n")[0] for name, text in docstrings(path).items()}
    assert not {name: line for name, line in found.items() if line.split()[0] in RIDDLES}


def test_no_two_files_have_one_name():
    names = Counter(path.name for path in FILES if path.name not in ("__init__.py", "__main__.py"))
    assert not {name for name, count in names.items() if count > 1}


def test_functions_take_few_positional_arguments():
    many = {}  # of `warnings.showwarning` Python says which it takes
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "show_warning":
                named = [a.arg for a in node.args.posonlyargs + node.args.args]
                count = len([name for name in named if name not in ("self", "cls")])
                if count > 5:
                    many[f"{path.relative_to(ROOT)}:{node.name}"] = count
    assert not many
