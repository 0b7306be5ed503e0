"""Checks of a checkpoint: it is undamaged, its state is finite, and it belongs to the same run."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import fetch
from dsd_jax.io.terminal import shorten

_MISSING = object()
_MAX_DIFFERENCES = 5  # in a message


def digest(tree: Any) -> str:
    """Return a SHA-256 of each leaf's path, dtype, shape and bytes; hosts must call it together."""
    return _digest(jax.tree_util.tree_leaves_with_path(tree))


def digests(state: Any) -> dict[str, str]:
    """Return a digest of each part of a state, down to the second level, such as "best.lora"."""
    parts: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path[:2], simple=True, separator=".")
        parts.setdefault(name, []).append((path, leaf))
    return {name: _digest(leaves) for name, leaves in parts.items()}


def _digest(leaves: list[tuple[Any, Any]]) -> str:
    sha = hashlib.sha256()
    for path, leaf in leaves:
        array = fetch(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """Add to JSON values their own digest, which `check_seal` compares."""
    return {**values, "seal": hashlib.sha256(json.dumps(values).encode()).hexdigest()}


def check_seal(sealed: Any) -> None:
    """Raise ValueError if the values are not as they were sealed."""
    if not isinstance(sealed, dict):
        raise ValueError("its description is no JSON object")
    values = {name: value for name, value in sealed.items() if name != "seal"}
    if seal(values) != sealed:
        raise ValueError("the digest of its description does not match")


def is_finite(state: Any) -> bool:
    """Return whether no float `jax.Array` in `state` has a NaN or an infinity.

    One jitted reduction for all arrays that share devices, so that only a flag leaves them however
    large and sharded the state is. All hosts must call it together, and get the same answer. NumPy
    arrays are not checked: there a NaN stands for a value that is not computed yet.
    """
    groups: dict[frozenset, list[jax.Array]] = {}
    for leaf in jax.tree.leaves(state):
        if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            groups.setdefault(frozenset(leaf.sharding.device_set), []).append(leaf)
    return processes.all_agree(all(bool(fetch(_all_finite(group))) for group in groups.values()))


@jax.jit
def _all_finite(arrays: Sequence[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.isfinite(array).all() for array in arrays]).all()


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> str:
    """Describe which fields differ, at any depth: "seed = 0, this one has 1"; "" for none.

    Values are JSON values; a field that is missing is shown as None.
    """
    one, other = flatten_fields(saved), flatten_fields(current)
    clauses = [
        f"{name} = {shorten(one.get(name))}, this one has {shorten(other.get(name))}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name, _MISSING) != other.get(name, _MISSING)
    ]
    more = len(clauses) - _MAX_DIFFERENCES
    ending = f", and {more} more differ" if more > 0 else ""
    return ", and with ".join(clauses[:_MAX_DIFFERENCES]) + ending


def flatten_fields(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return {"a.b": 1} for {"a": {"b": 1}}."""
    leaves: dict[str, Any] = {}
    for name, value in tree.items():
        inner = isinstance(value, dict) and value
        leaves |= flatten_fields(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return leaves
