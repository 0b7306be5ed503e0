"""Progress of a request on the demo's page."""

from collections.abc import Iterator
from contextlib import contextmanager

import gradio as gr


@contextmanager
def shown_by(progress: gr.Progress) -> Iterator[None]:
    """Show on the page that the work in this context is under way."""
    progress(None, desc="working")
    yield
