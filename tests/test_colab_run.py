"""The notebook for Colab runs from its first cell to its last, on the bundled model."""

import asyncio
import os

import nbclient
import nbformat

import dsd_jax
from tests.notebook import NOTEBOOK, fill_in, read_source

ROOT = NOTEBOOK.parents[1]


def test_it_runs(golden_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DSD_CACHE", str(tmp_path / "cache"))
    notebook = read_source()
    fill_in(notebook, PACKAGE="", PAIRS=24, PER_KIND=2, STEPS=4)
    fill_in(notebook, RUN=True, WEIGHTS=str(golden_folder("tiny-sd21")))  # for the Hub's
    client = nbclient.NotebookClient(
        notebook,
        timeout=170,  # seconds of one cell
        kernel_name="python3",
        resources={"metadata": {"path": str(tmp_path)}},
    )
    asyncio.run(client.async_execute())  # execute() would leave its loop open to later tests
    nbformat.write(notebook, os.environ.get("DSD_NOTEBOOK", tmp_path / "run.ipynb"))  # to look at
    pages = shown(notebook, "text/html")
    assert f"dsd_jax {dsd_jax.__version__}" in printed(notebook)
    assert pages.count("a cat to the left of an apple") >= 1  # the ranking
    assert shown(notebook, "image/png")  # maps
    assert "held-out" in pages  # what was learned, and what held-out pairs say to it
    assert "srcdoc" in pages and "unseen-artist" in pages  # the report
    assert "tiny-sd21" in pages  # the folder's scores


def shown(notebook: nbformat.NotebookNode, kind: str) -> str:
    """What all cells show of a kind of content."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(str(x["data"][kind]) for x in outputs if kind in x.get("data", {}))


def printed(notebook: nbformat.NotebookNode) -> str:
    """What all cells print."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    return "\n".join(x["text"] for x in outputs if x["output_type"] == "stream")
