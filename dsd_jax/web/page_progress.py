"""Progress of a request on the demo's page."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context

import gradio as gr

from dsd_jax.io.progress import Stage, duration, stages_shown_by


@contextmanager
def shown_by(progress: gr.Progress) -> Iterator[None]:
    """Show on the page how far the work in this context is."""
    request = copy_context()  # which Gradio looks for; the thread that shows stages has another

    def show(stage: Stage) -> None:
        left = "" if stage.left is None else f"{duration(stage.left)} left"
        text = ", ".join(filter(None, [stage.name, stage.note, left]))
        request.run(progress, stage.share or 0.0, desc=text)

    progress(0.0, desc="starting")
    with stages_shown_by(show):
        yield
