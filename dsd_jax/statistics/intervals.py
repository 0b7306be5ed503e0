"""Intervals of 95 % where a standard error misleads: few items, or shares near 0 or 1.

There the bootstrap has nothing to resample: three right answers of three have an error of zero.
Wilson's score interval (1927) and, for paired differences, Agresti and Min's (2005) stay apart from
zero width; both are what textbooks recommend for few observations.
"""

import math
from typing import NamedTuple

import numpy as np

FEW = 5  # successes or failures, below which the normal approximation is not trusted
_Z = 1.96


class Interval(NamedTuple):
    """The ends of an interval, fractions."""

    low: float
    high: float


def share_interval(share: float, stderr: float, count: int) -> Interval | None:
    """Return Wilson's interval of a share, or None where its standard error tells enough.

    Args:
        share: of successes, 0 to 1.
        stderr: of the share. Where it is larger than that of `count` independent outcomes, there
            are taken to be as many fewer.
        count: of independent outcomes.
    """
    if min(share, 1 - share) * count > FEW - 1e-6:
        return None
    variance = share * (1 - share)
    n = min(count, variance / stderr**2) if stderr and variance else count
    center = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * math.sqrt(variance / n + _Z**2 / (4 * n**2))
    return Interval(max(0.0, min(center - half, share)), min(1.0, max(center + half, share)))


def difference_interval(differences: np.ndarray, count: int) -> Interval | None:
    """Return Agresti and Min's interval of a mean paired difference of shares.

    None is returned where its standard error tells enough.

    Args:
        differences: -1 to 1, of each item.
        count: of independent items among them.
    """
    gained = count * float(np.maximum(differences, 0).mean())
    lost = count * float(np.maximum(-differences, 0).mean())
    rarer = count - max(gained, lost, count - gained - lost)
    if rarer > FEW - 1e-6:
        return None
    n = count + 2  # half an item is added to each of the four outcomes of a pair
    center = (gained - lost) / n
    half = _Z * math.sqrt(max(0.0, gained + lost + 1 - (gained - lost) ** 2 / n)) / n
    mean = float(differences.mean())
    return Interval(max(-1.0, min(center - half, mean)), min(1.0, max(center + half, mean)))
