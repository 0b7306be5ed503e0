"""The Colab notebook: made from its readable source, and run with other values in its forms.

python -m tests.notebook        writes launch/colab.ipynb
"""

import re
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

SOURCE = Path(__file__).parents[1] / "launch" / "colab.py"
NOTEBOOK = SOURCE.with_suffix(".ipynb")


def read_source() -> NotebookNode:
    """The notebook that the source gives, the same each time."""
    notebook = jupytext.reads(SOURCE.read_text("utf-8"), fmt="py:percent")
    notebook.metadata.pop("jupytext", None)  # says which version of jupytext read it
    for number, cell in enumerate(notebook.cells):
        cell["id"] = f"cell-{number}"
    return notebook


def as_text(notebook: NotebookNode) -> str:
    """What stands in its file."""
    return nbformat.writes(notebook).rstrip("\n") + "\n"


def tagged(notebook: NotebookNode, tag: str) -> str:
    """The code of the one cell with a tag."""
    (source,) = [c.source for c in notebook.cells if tag in c.metadata.get("tags", ())]
    return source


def fill_in(notebook: NotebookNode, **values: object) -> None:
    """Enter values into the forms, as a user would: {name: value}."""
    for name, value in values.items():
        found = 0
        for cell in notebook.cells:
            pattern = rf"^{name} = .*?(?=  # @param)"
            filled = f"{name} = {value!r}".replace("\\", r"\\")
            cell.source, count = re.subn(pattern, filled, cell.source, flags=re.M)
            found += count
        if found != 1:
            raise ValueError(f"{found} fields are called {name}")


if __name__ == "__main__":
    NOTEBOOK.write_text(as_text(read_source()), "utf-8")
