"""What `pip install` gets: the wheel has all that a checkout has, and works from any folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTS = ("tests/requirements.txt", "docs/requirements.txt")
NEEDED = ("README.md", "LICENSE", "pyproject.toml", *LISTS)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The unpacked wheel, built without an index in a copy of what goes into it."""
    folder = tmp_path_factory.mktemp("wheel")
    source, unpacked = folder / "source", folder / "unpacked"
    files = ["configs", "dsd_jax", *NEEDED, *(f.name for f in ROOT.glob("requirements*.txt"))]
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / name, source / name)
    build = "from setuptools.build_meta import build_wheel; print(build_wheel('..'))"
    command = [sys.executable, "-W", "ignore", "-c", build]
    done = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    with zipfile.ZipFile(folder / done.stdout.splitlines()[-1]) as archive:
        archive.extractall(unpacked)
    return unpacked


def run(wheel: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Runs Python in a folder, where it finds the wheel's package and not that of the checkout."""
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_wheel_has_every_file_of_the_package_and_the_configs(wheel):
    def files(folder: Path) -> set[str]:
        found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
        return {str(path) for path in found if "__pycache__" not in path.parts}

    package = files(ROOT / "dsd_jax") | {f"configs/{name}" for name in files(ROOT / "configs")}
    assert package - files(wheel / "dsd_jax") == set()
    (about,) = wheel.glob("dsd_jax-*.dist-info")
    assert "dsd-jax = dsd_jax.__main__:run" in (about / "entry_points.txt").read_text()
    assert {path.name for path in wheel.iterdir()} == {"dsd_jax", about.name}


def test_a_config_is_found_by_name_from_any_folder(wheel, tmp_path):
    for config in ("emoji:full", "configs/emoji.py:full"):
        done = run(wheel, tmp_path, "-m", "dsd_jax", "train", f"--config={config}", "--help")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("usage: python -m dsd_jax train ")
        assert "--config.per_kind=500" in done.stdout


def test_the_installed_command_is_named_as_it_was_typed(wheel, tmp_path):
    script = tmp_path / "dsd-jax"  # as pip writes it
    script.write_text("import sys\nfrom dsd_jax.__main__ import run\nsys.exit(run())\n")
    shown = run(wheel, tmp_path, str(script), "score", "--help")
    assert shown.stdout.startswith("usage: dsd-jax score ") and "\n  dsd-jax score" in shown.stdout
    mistaken = run(wheel, tmp_path, str(script), "score", "--caption=x")
    assert mistaken.returncode == 2
    assert mistaken.stderr.endswith("; see dsd-jax score --help.\n")
