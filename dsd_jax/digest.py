"""Fingerprints of a training state, by which damage is noticed."""

import hashlib
from typing import Any

import jax
import numpy as np

from dsd_jax.sharding import fetch


def digest(tree: Any) -> str:
    """SHA-256 over paths, dtypes, shapes and bytes of every leaf; hosts must call it together."""
    return _digest(jax.tree_util.tree_leaves_with_path(tree))


def digests(state: Any) -> dict[str, str]:
    """One digest for each part of a state, down to the second level: "state.prompts", "best"."""
    parts: dict[str, list] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        name = jax.tree_util.keystr(path[:2], simple=True, separator=".")
        parts.setdefault(name, []).append((path, leaf))
    return {name: _digest(leaves) for name, leaves in parts.items()}


def _digest(leaves: list[tuple[Any, Any]]) -> str:
    total = hashlib.sha256()
    for path, leaf in leaves:
        array = fetch(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
