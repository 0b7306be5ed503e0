"""Check that a training state can be gone on from: every number on the devices is finite."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import fetch


def is_finite(state: Any) -> bool:
    """Return whether no `jax.Array` of floats in `state` has a NaN or an infinity.

    One jitted reduction for all arrays that share devices, so that only a flag leaves them however
    large and sharded the state is. All hosts must call it together, and get the same answer. NumPy
    arrays are not looked at: there a NaN stands for what has not been computed yet.
    """
    groups: dict[frozenset, list[jax.Array]] = {}
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            groups.setdefault(frozenset(leaf.sharding.device_set), []).append(leaf)
    return processes.all_agree(all(bool(fetch(_all_finite(group))) for group in groups.values()))


@jax.jit
def _all_finite(arrays: Sequence[jax.Array]) -> jax.Array:
    """Return one flag for all arrays."""
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()
