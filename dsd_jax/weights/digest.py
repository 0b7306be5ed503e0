"""A fingerprint of frozen weights: prompts belong to the ones that they were learned on."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsd_jax.weights.names import flatten


def weights_digest(params: Mapping[str, Any]) -> str:
    """SHA-256 of a tree of arrays: names, types, shapes and bytes of all leaves, as 64 hex digits.

    The same weights have the same digest whatever file they came from, and another in another
    dtype. It takes about a second per gigabyte.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = np.ascontiguousarray(leaf)
        digest.update(f"{'/'.join(path)} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
