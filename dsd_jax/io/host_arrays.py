"""Arrays that grow with a data set: in the host's memory, large ones mapped to a file."""

import itertools
import math
import os
import tempfile
from collections.abc import Iterable
from typing import TypeVar

import jax
import numpy as np

from dsd_jax.errors import UserError

Tree = TypeVar("Tree")

IN_MEMORY = 2**30  # bytes of a tree of arrays that stay in memory; larger ones are mapped
_GIB = 2**30


def stacked(parts: Iterable[Tree], rows: int) -> Tree:
    """Concatenate trees of arrays along their leading axis, with one part in memory at a time.

    Args:
        parts: trees of one structure, whose arrays have rows as their leading axis; at least one.
        rows: of all parts together; rows of the last part beyond them are padding.

    Raises:
        UserError: the arrays are larger than `IN_MEMORY`, and there is no room for them on disk.
    """
    parts = iter(parts)
    first = next(parts)
    whole, start = _like(first, rows), 0
    for part in itertools.chain([first], parts):
        size = min(rows - start, len(jax.tree.leaves(part)[0]))
        for into, x in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
            into[start : start + size] = x[:size]
        start += size
    return whole


def _like(part: Tree, rows: int) -> Tree:
    shapes = [(rows, *x.shape[1:]) for x in jax.tree.leaves(part)]
    dtypes = [x.dtype for x in jax.tree.leaves(part)]
    sizes = [math.prod(x) * y.itemsize for x, y in zip(shapes, dtypes, strict=True)]
    new = _mapped if sum(sizes) > IN_MEMORY else np.empty
    arrays = [new(x, y) for x, y in zip(shapes, dtypes, strict=True)]
    return jax.tree.unflatten(jax.tree.structure(part), arrays)


def _mapped(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array in a nameless file, which is deleted with the array or the process."""
    size = math.prod(shape) * dtype.itemsize
    if not size:
        return np.empty(shape, dtype)
    try:
        with tempfile.TemporaryFile(prefix="dsd_jax-") as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk would kill the process later
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        raise UserError(
            f"{tempfile.gettempdir()} has no room for {size / _GIB:.1f} GiB of intermediate "
            f"results ({error.strerror}); set TMPDIR to a folder with more."
        ) from error
