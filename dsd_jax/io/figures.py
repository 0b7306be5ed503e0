"""Figures of matplotlib that a notebook shows by themselves, without pyplot's global state."""

import io
from typing import Any

from matplotlib.figure import Figure

INK, SOFT, LINE = "#1f2328", "#5c636e", "#d8d5ce"
CHOSEN, OTHER = "#c2410c", "#5b6b86"  # as in reports; told apart by any eye, on white or gray


class NotebookFigure(Figure):
    """A figure that is drawn where a notebook shows it as a cell's value.

    IPython draws matplotlib's own figures only once pyplot has been imported.
    """

    def _repr_png_(self) -> bytes:
        return png_bytes(self)


def new_figure(width: float, height: float, **options: Any) -> NotebookFigure:
    """Return an empty figure whose parts do not overlap; sizes in inches, on white."""
    settings = {"layout": "constrained", "dpi": 110, "facecolor": "white"} | options
    return NotebookFigure(figsize=(width, height), **settings)


def png_bytes(figure: Figure) -> bytes:
    """Return a figure as the content of a PNG file."""
    return figure_bytes(figure, "png")


def figure_bytes(figure: Figure, format: str) -> bytes:
    """Return a figure as the content of a file: "png", "pdf", "svg", "jpg" or "webp"."""
    content = io.BytesIO()
    figure.savefig(content, format=format, dpi=figure.dpi)
    return content.getvalue()
