"""Wrong candidates, drawn by seed."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from dsd_jax.errors import UserError

Candidate = TypeVar("Candidate")
TRIES = 20  # per candidate, before the whole pool is looked through


def draw_others(
    key: Sequence[int],
    pool: Sequence[Candidate],
    count: int,
    welcome: Callable[[Candidate], bool],
    what: str,
) -> list[Candidate]:
    """`count` different members of a pool.

    Args:
        key: what they follow from, such as (seed, number of the item).
        pool: what to draw from, each place as likely as any other.
        count: how many.
        welcome: whether a member may be among them.
        what: what they are, for the message.

    Raises:
        UserError: the pool has not so many welcome members.
    """
    rng = np.random.default_rng(list(key))
    # More than there are can't be found, and tries for them might not fit into memory.
    tries = TRIES * min(count, len(pool))
    places = rng.integers(len(pool), size=tries) if pool else ()
    found = first_welcome([], (pool[i] for i in places), count, welcome)
    if len(found) < count and pool:
        found = first_welcome(found, (pool[i] for i in rng.permutation(len(pool))), count, welcome)
    if len(found) < count:
        raise UserError(
            f"{count} wrong candidates are needed, and there are only {len(found)} {what}; "
            "ask for fewer candidates or give more data."
        )
    return found


def first_welcome(found: list, candidates, count: int, welcome) -> list:
    """`found` and more of the candidates until there are `count`."""
    for candidate in candidates:
        if len(found) == count:
            break
        if candidate not in found and welcome(candidate):
            found.append(candidate)
    return found
