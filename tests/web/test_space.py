"""The files for a Hugging Face Space fit the demo that they start."""

import re
import runpy
from pathlib import Path

import yaml

import dsd_jax.cli
from dsd_jax import demo

SPACE = Path(__file__).parents[2] / "launch" / "space"


def front_matter():
    return yaml.safe_load((SPACE / "README.md").read_text("utf-8").split("---\n")[1])


def test_the_front_matter_names_a_gradio_that_the_demo_takes():
    needed = (SPACE.parents[1] / "requirements-demo.txt").read_text()
    found = re.search(r"^gradio>=(\d+)\.(\d+),<(\d+)", needed, re.MULTILINE)
    least, least_minor, below = map(int, found.groups())
    about = front_matter()
    major, minor = map(int, about["sdk_version"].split(".")[:2])
    assert about["sdk"] == "gradio" and (least, least_minor) <= (major, minor) < (below, 0)
    assert (SPACE / about["app_file"]).is_file()
    assert len(about["short_description"]) <= 60  # as the Hub asks


def test_the_app_is_the_demo_where_a_space_looks_for_it(monkeypatch):
    called = []
    monkeypatch.setattr(dsd_jax.cli, "run_command", lambda main, argv: called.append((main, argv)))
    runpy.run_path(str(SPACE / "app.py"))
    ((main, argv),) = called
    assert main is demo.main
    flags = demo.make_parser().parse_args(argv)
    assert (flags.host, flags.port, flags.share) == ("0.0.0.0", 7860, False)
