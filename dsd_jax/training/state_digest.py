"""Fingerprints of a training state, by which damage is noticed."""

import hashlib
import json
from typing import Any

import jax
import numpy as np

from dsd_jax.distributed.sharding import fetch


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


def seal(values: dict[str, Any]) -> dict[str, Any]:
    """JSON values with their own digest added, which `check_seal` knows."""
    return {**values, "seal": hashlib.sha256(json.dumps(values).encode()).hexdigest()}


def check_seal(sealed: Any) -> None:
    """Raise ValueError if the values are not as they were sealed."""
    if not isinstance(sealed, dict):
        raise ValueError("its description is no JSON object")
    values = {name: value for name, value in sealed.items() if name != "seal"}
    if seal(values) != sealed:
        raise ValueError("the digest of its description does not match")


def _digest(leaves: list[tuple[Any, Any]]) -> str:
    total = hashlib.sha256()
    for path, leaf in leaves:
        array = fetch(leaf)
        total.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()
