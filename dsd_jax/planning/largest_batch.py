"""The largest batch that fits, in few compilations."""

from collections.abc import Callable
from typing import NamedTuple

from dsd_jax.planning.compilation import Figures, Shortage

_LEAP = 4  # times the largest that fitted is as far as two small batches can foretell


class Fit(NamedTuple):
    """What was found by compiling.

    Attributes:
        batch: the largest that fits, per device; 0 where not even 1 does.
        tried: {batch: figures}, in the order of trying.
    """

    batch: int
    tried: dict[int, Figures | Shortage]


def largest_fit(
    compile_batch: Callable[[int], Figures | Shortage],
    available: float,
    start: int = 1,
    limit: int = 1024,
) -> Fit:
    """The largest batch of 1 to `limit` that fits, supposing that all smaller ones do too.

    A compilation takes minutes. The peak grows by nearly the same from item to item, so two batches
    that fit foretell where it ends, and the next try is there; doubling and halving are for what
    was foretold badly.

    Args:
        compile_batch: figures at a batch per device.
        available: bytes of memory per device.
        start: the first batch to try.
        limit: the largest.
    """
    tried: dict[int, Figures | Shortage] = {}
    good, bad, batch = 0, limit + 1, min(start, limit)
    while bad - good > 1:
        tried[batch] = compile_batch(batch)
        if tried[batch].fits:
            good = batch
        else:
            bad = batch
        peaks = {size: found.peak for size, found in tried.items() if isinstance(found, Figures)}
        batch = _next(peaks, available, good, bad)
    return Fit(good, tried)


def _next(peaks: dict[int, int], available: float, good: int, bad: int) -> int:
    """The next to try: good < next < bad while there is any between them."""
    foretold = _foretold(peaks, available) if len(peaks) > 1 else 2 * good
    if good < foretold < bad:
        return foretold
    return good + 1 if 0 < foretold <= good else (good + bad) // 2


def _foretold(peaks: dict[int, int], available: float) -> int:
    """Where the line through the peaks of the two largest batches meets the memory there is."""
    small, large = sorted(peaks)[-2:]
    slope = (peaks[large] - peaks[small]) / (large - small)
    rest = available - peaks[large]
    return _LEAP * large if slope * _LEAP * large <= rest else large + int(rest / slope)
