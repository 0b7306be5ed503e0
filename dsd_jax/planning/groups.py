"""Which devices of a program talk to each other, in each of the ways that HLO writes it."""

import re
from math import prod

import numpy as np

_SIDES = re.compile(r"\d+")
_AXIS = re.compile(r"'([^']+)'=(\d+)")


def read_groups(text: str | None, devices: int) -> np.ndarray | None:
    """The groups of a collective: (groups, devices of each), None where they can't be read.

    Args:
        text: of `replica_groups` or of `source_target_pairs`: a list {{0,1},{2,3}}, where nothing
            means all in one group; or [2,4]<=[4,2]T(1,0), a count reshaped, transposed, reshaped;
            or mesh['a'=2,'b'=4] {'b'}, axes of a mesh.
        devices: of the program.
    """
    if not text or text == "{}":
        return np.arange(devices)[None]
    if text.startswith("{"):
        lists = [[int(x) for x in part.split(",")] for part in text.strip("{}").split("},{")]
        return np.asarray(lists) if len({len(some) for some in lists}) == 1 else None
    if text.startswith("["):
        shape, _, order = text.partition("<=")
        return _count(order).reshape(_numbers(shape))
    return _of_mesh(text) if text.startswith("mesh[") else None


def _of_mesh(text: str) -> np.ndarray | None:
    """mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}: the ids in the mesh's shape, along x."""
    head, _, tail = text.rpartition("{")
    axes, _, order = head.partition("]")
    sizes = {name: int(size) for name, size in _AXIS.findall(axes)}
    along = tail.strip("}").replace("'", "").replace(" ", "").split(",")
    if not sizes or any(name not in sizes for name in along):
        return None  # such as a part of an axis
    ids = _count(order) if "device_ids" in order else np.arange(prod(sizes.values()))
    names = list(sizes)
    rest = [names.index(name) for name in names if name not in along]
    moved = ids.reshape(tuple(sizes.values())).transpose(
        *rest, *(names.index(name) for name in along)
    )
    return moved.reshape(-1, prod(sizes[name] for name in along))


def _count(text: str) -> np.ndarray:
    """0, 1, 2, ... in the shape [4,2], transposed by T(1,0) where that follows."""
    shape, _, order = text.partition("T(")
    ids = np.arange(prod(_numbers(shape))).reshape(_numbers(shape))
    return ids.transpose(_numbers(order)) if order else ids


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _SIDES.findall(text))
