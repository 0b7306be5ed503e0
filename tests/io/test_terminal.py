"""Text for a terminal."""

import io
import sys
from types import SimpleNamespace

from dsd_jax.io.terminal import shows_progress


def test_progress_is_shown_where_somebody_watches(monkeypatch):
    assert shows_progress(True) and not shows_progress(False)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not shows_progress()
    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    assert shows_progress()
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    assert not shows_progress()
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert shows_progress()
