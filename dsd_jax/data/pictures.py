"""Picture files of a data set: found by listing folders, not by asking for each one; then read."""

import os
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from dsd_jax.data.images import open_image, read_image, squared
from dsd_jax.errors import UserError

TOLD = 3  # missing pictures that are named
ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


def locate(root: Path, folders: Sequence[str], names: Iterable[str], source: str) -> dict[str, str]:
    """{name: path relative to `root`} of pictures that lie in any of some folders.

    Args:
        root: what the folders are in.
        folders: where a picture may be, the first one first; "" is `root` itself.
        names: file names, or paths below one of the folders.
        source: where people get the pictures.

    Raises:
        UserError: some are nowhere; it says how many and names the first few.
    """
    names = list(dict.fromkeys(names))
    listed: dict[str, frozenset[str]] = {}
    found = {}
    for name in names:
        for folder in folders:
            path = os.path.normpath(os.path.join(folder, name))
            parent, file = os.path.split(path)
            if parent not in listed:
                listed[parent] = list_folder(root / parent)
            if file in listed[parent]:
                found[name] = path
                break
    lacking = [name for name in names if name not in found]
    if lacking:
        told = ", ".join(lacking[:TOLD]) + (", ..." if len(lacking) > TOLD else "")
        places = " or ".join(str(root / folder) for folder in folders)
        raise UserError(
            f"{len(lacking):,} of {len(names):,} pictures are missing ({told}): expected them in "
            f"{places}, from {source}."
        )
    return found


def list_folder(folder: Path) -> frozenset[str]:
    """The names of what is in a folder; none if it isn't there."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()


def reader(root: Path, fit: str):
    """What reads pictures by the keys that `locate` gives, for `Examples.read`."""
    return partial(read_file, root, fit)


def read_file(root: Path, fit: str, key: str | tuple[str, int, int, int, int], size: int):
    """A picture, uint8 (size, size, 3), or the part of it that a key (path, x, y, w, h) names."""
    if isinstance(key, str):
        return read_image(root / key, size, fit)
    path, *box = key
    return read_part(root / path, box, size, fit)


def read_part(path: Path, box: Sequence[int], size: int, fit: str) -> np.ndarray:
    """The part of a picture in a box x, y, width, height, cut to what is inside the picture.

    Raises:
        UserError: nothing of it is inside.
    """
    picture = open_image(path)
    x, y, width, height = box
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, picture.width), min(y + height, picture.height)
    if left >= right or top >= bottom:
        raise UserError(
            f"picture {path} has {picture.width}x{picture.height} pixels, so that the box "
            f"{tuple(box)} (x, y, width, height) holds none of it; is it the original picture?"
        )
    return squared(picture.crop((left, top, right, bottom)), size, fit)
