"""A fingerprint of frozen weights: prompts belong to the ones that they were learned on."""

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from dsd_jax.models.tensor_names import flatten


def weights_digest(params: Mapping[str, Any], dtype: np.dtype | None = None) -> str:
    """Return the SHA-256 of a tree of arrays: names, types, shapes and bytes of all leaves.

    The same weights have the same digest whatever file they came from, and another in another
    dtype. It takes about a second per gigabyte.

    Args:
        params: the tree.
        dtype: in which to take the weights, as if they had been loaded so; by default as they are.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = np.asarray(leaf)
        if dtype is not None and array.ndim:  # scalars are always float32
            array = array.astype(dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        digest.update(f"{'/'.join(path)} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
