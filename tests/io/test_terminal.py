"""Text for a terminal."""

import io
import sys
from types import SimpleNamespace

from tqdm import tqdm

from dsd_jax.io.terminal import advance, shows_progress


def test_a_bar_never_passes_its_total():
    with tqdm(total=100, file=io.StringIO()) as bar:
        for _ in range(3):
            advance(bar, 33.4)
        assert bar.n == 100
        advance(bar, -1.0)
        assert bar.n == 100


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
