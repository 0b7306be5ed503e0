"""The largest batch that fits, with a compiler that is a formula."""

import pytest

from dsd_jax.planning.compilation import GIB, Figures, Shortage
from dsd_jax.planning.largest_batch import largest_fit

NOTHING = Figures(0, 0, 0, 0, 0, 0)


def compiler(peak_of, available=16.0):
    """Figures by `peak_of(batch)` in GiB, and the batches that were asked for."""
    asked = []

    def compile_batch(batch):
        asked.append(batch)
        peak = peak_of(batch)
        if peak > available:
            return Shortage(peak * GIB, available * GIB)
        return NOTHING._replace(peak=int(peak * GIB))

    return compile_batch, asked


@pytest.mark.parametrize(
    "peak_of",
    [
        lambda batch: 2 + batch,
        lambda batch: 1 + 0.1 * batch,
        lambda batch: 1 + 0.01 * batch**2,
        lambda batch: 12 + 0.3 * batch**0.5,
        lambda batch: 3 + 1.5 * -(-batch // 8),  # rows are padded to eight
        lambda batch: 15.9 if batch == 1 else 17,
        lambda batch: 5,  # nothing is too much
        lambda batch: 17,  # everything is
    ],
)
@pytest.mark.parametrize("start", [1, 2, 3, 64, 5000])
@pytest.mark.parametrize("limit", [1, 2, 40, 100])
def test_finds_what_trying_all_finds(peak_of, start, limit):
    compile_batch, asked = compiler(peak_of)
    found = largest_fit(compile_batch, 16 * GIB, start, limit)
    assert found.batch == max((b for b in range(1, limit + 1) if peak_of(b) <= 16), default=0)
    assert list(found.tried) == asked and len(asked) == len(set(asked))
    assert all(1 <= batch <= limit for batch in asked)
    for batch, figures in found.tried.items():
        assert figures.fits == (peak_of(batch) <= 16)
    if found.batch:
        assert found.batch in found.tried


def test_few_compilations_where_memory_is_a_line():
    compile_batch, asked = compiler(lambda batch: 2 + 1.03 * batch)
    assert largest_fit(compile_batch, 16 * GIB).batch == 13
    assert asked == [1, 2, 8, 13, 14]


def test_few_compilations_where_it_is_not():
    compile_batch, asked = compiler(lambda batch: 1 + 0.001 * batch**2)
    assert largest_fit(compile_batch, 16 * GIB).batch == 122
    assert len(asked) <= 12
