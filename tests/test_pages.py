"""The pages of docs/ build, and hold all that is public."""

import re
import subprocess
import sys
import zlib
from pathlib import Path

import pytest

import dsd_jax
from tests.documents import ROOT


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> Path:
    """The built pages; a warning, such as a link to nowhere, fails the build."""
    folder = tmp_path_factory.mktemp("pages")
    options = ["-q", "-W", "--keep-going", "-d", str(folder / "doctrees")]
    command = [sys.executable, "-m", "sphinx", *options, "docs", str(folder / "html")]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder / "html"


def test_every_page_is_built(pages):
    built = {path.stem for path in pages.glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= built


def test_public_names_are_in_the_reference(pages):
    packed = (pages / "objects.inv").read_bytes().split(b"\n", 4)[4]  # after four lines of head
    documented = {line.split()[0] for line in zlib.decompress(packed).decode().splitlines()}
    public = {f"dsd_jax.{name}" for name in dsd_jax.__all__ if not name.startswith("__")}
    assert public <= documented


def test_links_between_pages_lead_to_headings(pages):
    """Sphinx checks those that are written as Markdown links; this one checks what readers get."""
    broken = []
    for path in pages.glob("*.html"):
        for page, anchor in re.findall(
            r'href="([\w-]+\.html)?#([\w.-]+)"', path.read_text("utf-8")
        ):
            target = (pages / page if page else path).read_text("utf-8")
            if f'id="{anchor}"' not in target:
                broken.append(f"{path.name}: {page}#{anchor}")
    assert broken == []
