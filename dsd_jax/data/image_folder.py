"""Picture files of a data set: found by listing folders, not by asking for each one; then read."""

import os
import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.io.images import open_image, read_image, squared

TOLD = 3  # missing pictures that are named
_LONGEST = 100  # characters of a name in a message
# Formats that Pillow knows by name alone, and needs other programs for; documents.
_UNREADABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


@lru_cache
def endings() -> tuple[str, ...]:
    """Return how names of pictures end, in small letters: those of all formats Pillow reads."""
    known = Image.registered_extensions().items()
    readable = {end for end, form in known if form in Image.OPEN and form not in _UNREADABLE}
    return tuple(sorted(readable | {".spider"}))


def locate(root: Path, folders: Sequence[str], names: Iterable[str], source: str) -> dict[str, str]:
    """Return {name: path relative to `root`} of pictures that lie in any of some folders.

    A name is found under its other Unicode normal form too: Macs write "é" as two characters.

    Args:
        root: what the folders are in.
        folders: where a picture may be, the first one first; "" is `root` itself.
        names: file names, or paths below one of the folders.
        source: where people get the pictures.

    Raises:
        UserError: some are nowhere; it says how many and names the first few.
    """
    names = list(dict.fromkeys(names))
    listing = _Listing(root)
    found = {}
    for name in names:
        paths = (os.path.normpath(os.path.join(folder, name)) for folder in folders)
        path = next(filter(None, map(listing.find, paths)), None)
        if path is not None:
            found[name] = path
    lacking = [name[:_LONGEST] for name in names if name not in found]
    if lacking:
        told = ", ".join(lacking[:TOLD]) + (", ..." if len(lacking) > TOLD else "")
        places = " or ".join(str(root / folder) for folder in folders)
        raise UserError(
            f"{len(lacking):,} of {len(names):,} pictures are missing ({told}): expected them in "
            f"{places}, from {source}."
        )
    return found


class _Listing:
    """Folders below a root, each listed once."""

    def __init__(self, root: Path):
        self._root = root
        self._names: dict[str, frozenset[str]] = {}
        self._composed: dict[str, dict[str, str]] = {}

    def find(self, path: str) -> str | None:
        """Return the path at which a file lies, or its name is written otherwise; None if none."""
        parent, file = os.path.split(path)
        if file in self._list(parent):
            return path
        if path.isascii():
            return None
        if not self._list(parent) and parent not in ("", os.sep):
            other = self.find(parent)
            if other is None:
                return None
            parent = other
        if parent not in self._composed:
            names = sorted(self._list(parent))
            self._composed[parent] = {unicodedata.normalize("NFC", name): name for name in names}
        same = self._composed[parent].get(unicodedata.normalize("NFC", file))
        return None if same is None else os.path.join(parent, same)

    def _list(self, folder: str) -> frozenset[str]:
        if folder not in self._names:
            self._names[folder] = list_folder(self._root / folder)
        return self._names[folder]


def list_folder(folder: Path) -> frozenset[str]:
    """Return the names of what is in a folder; none if it isn't there.

    Raises:
        UserError: it may not be read.
    """
    return frozenset(_scan(folder, folders_alone=False))


def list_folders(folder: Path) -> frozenset[str]:
    """Return the names of the folders in a folder; see `list_folder`."""
    return frozenset(_scan(folder, folders_alone=True))


def _scan(folder: Path, *, folders_alone: bool) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if not folders_alone or entry.is_dir()]
    except PermissionError as error:
        raise UserError(f"{folder} can't be read ({error.strerror}).") from error
    except (OSError, ValueError):  # not there, no folder, a name that can be none
        return []


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
