"""The emoji benchmark with few items, prepared in a home folder of its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dsd_jax.data.synthetic import triples

FEW = {"shots": 20, "validation": 5, "test": 15}


@contextmanager
def few_items(home: Path) -> Iterator[None]:
    """Meanwhile every split is its first items, and what is prepared goes under `home`."""
    with pytest.MonkeyPatch.context() as patch:
        for split, count in FEW.items():
            patch.setitem(triples.SPLITS, split, count)
        patch.setenv("HOME", str(home))
        yield
