"""The curve of held-out losses in a notebook, drawn anew at every check while learning goes on."""

import importlib
from typing import Any

from dsd_jax.prompts.learning_history import LearningHistory


class LiveCurve:
    """A curve in the output of a notebook's cell, of which each check adds a point.

    Args:
        steps: of the optimizer, at most.
        shown: whether there is a notebook that shows it; elsewhere nothing happens.
    """

    def __init__(self, steps: int, *, shown: bool):
        """Show nothing before the first point."""
        self._steps, self._shown = steps, shown
        self._losses: dict[int, float] = {}
        self._handle: Any = None

    def add(self, step: int, loss: float) -> None:
        """Add the mean held-out loss of a check."""
        self._losses[step] = loss
        self._show(LearningHistory(self._losses, None, self._steps))

    def end(self, history: LearningHistory) -> None:
        """Draw the whole curve, with the step that was kept."""
        if history.losses:
            self._show(history)

    def _show(self, history: LearningHistory) -> None:
        if not self._shown:
            return
        notebook = importlib.import_module("IPython.display")  # by which we are in one
        content = notebook.HTML(history.html())
        if self._handle is None:
            self._handle = notebook.display(content, display_id=True)
        else:
            self._handle.update(content)
