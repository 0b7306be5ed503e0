"""Seeds of noise: whole numbers of 32 bits, which is what JAX's keys are made of."""

import operator
from typing import Any

from dsd_jax.errors import UserError

MOST_SEED = 2**32 - 1


def check_seed(seed: Any, name: str = "seed") -> int:
    """Return the seed as an int.

    Raises:
        UserError: it is no whole number, or JAX would wrap it around: 2**32 would be 0 again.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if isinstance(seed, bool) or not 0 <= number <= MOST_SEED:
        raise UserError(f"{name} is {seed!r}; expected a whole number from 0 to {MOST_SEED}.")
    return number
