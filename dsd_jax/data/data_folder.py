"""The folder of a data set: its required files and images, found by listing folders, then read."""

import os
import stat
import unicodedata
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from PIL import Image

from dsd_jax.data.examples import Example, Examples
from dsd_jax.errors import UserError
from dsd_jax.io.images import open_image, read_image, to_square
from dsd_jax.io.local_files import expand

# An image's path, or the path and the box (x, y, width, height) of a part of it.
ImageKey: TypeAlias = str | tuple[str, int, int, int, int]

FOLDER_FIELD = "--config.data.folder"  # in messages: how a command names the folder
_NAMED = 3  # missing images in a message
_LONGEST = 100  # characters of a name in a message
# Formats that Pillow knows by name alone, and needs other programs for; documents.
_UNREADABLE = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}


class RequiredFile(NamedTuple):
    """A file or folder that must be there.

    names: where it may be, relative to the data set's folder, the usual place first.
    source: where people get it; "" where it is their own.
    """

    names: tuple[str, ...]
    source: str

    @property
    def origin(self) -> str:
        """The end of a sentence on where people get it."""
        return f", from {self.source}" if self.source else ""


class DataFolder(NamedTuple):
    """A data set on disk.

    root: what holds the annotation files.
    image_root: what holds the images' folders; often `root`.
    image_folders: the images' folders; "" among their names is `image_root` itself.
    fit: how images become square; see `images.FITS`.
    """

    root: Path
    image_root: Path
    image_folders: RequiredFile
    fit: str

    @classmethod
    def open(
        cls, folder: str, image_folders: RequiredFile, *, pictures: str = "", fit: str = "stretch"
    ) -> "DataFolder":
        """Return the data set in `folder`, whose images are in `pictures` if that is given.

        Raises:
            UserError: one of the two is no folder.
        """
        root = existing_folder(folder)
        image_root = existing_folder(pictures, "--config.data.pictures") if pictures else root
        return cls(root, image_root, image_folders, fit)

    def find(self, files: Sequence[RequiredFile]) -> list[Path]:
        """Return the paths of annotation files, all of which must be there.

        That there is no folder of images is said along with other missing files only: images may
        lie in `image_root` itself, and the annotations say which are needed.

        Raises:
            UserError: some are missing; all of these are named, with where they come from.
        """
        paths = [first_existing(self.root, file.names) for file in files]
        missing = [file for file, path in zip(files, paths, strict=True) if path is None]
        if missing:
            names = tuple(filter(None, self.image_folders.names))
            if names and first_existing(self.image_root, names) is None:
                missing.append(RequiredFile(names, self.image_folders.source))
            named = "; ".join(f"{' or '.join(file.names)}{file.origin}" for file in missing)
            raise UserError(
                f"{self.root} lacks {named}; put it there, or name another folder by "
                f"{FOLDER_FIELD}."
            )
        return [path for path in paths if path is not None]

    def locate(self, names: Iterable[str]) -> dict[str, str]:
        """Return {name: path relative to `image_root`} of images in any of `image_folders`.

        A name is found under its other Unicode normal form too: Macs write "é" as two characters.

        Args:
            names: file names, or paths below one of the folders.

        Raises:
            UserError: some are nowhere; it says how many and names the first few.
        """
        folders = self.image_folders.names
        names = list(dict.fromkeys(names))
        listing = _Listing(self.image_root)
        paths = {}
        for name in names:
            places = (os.path.normpath(os.path.join(folder, name)) for folder in folders)
            path = next(filter(None, map(listing.find, places)), None)
            if path is not None:
                paths[name] = path
        missing = [name[:_LONGEST] for name in names if name not in paths]
        if missing:
            named = ", ".join(missing[:_NAMED]) + (", ..." if len(missing) > _NAMED else "")
            expected = " or ".join(str(self.image_root / folder) for folder in folders)
            raise UserError(
                f"{len(missing):,} of {len(names):,} images are missing ({named}): expected them "
                f"in {expected}{self.image_folders.origin}."
            )
        return paths

    def examples(self, items: Iterable[Example]) -> Examples:
        """Return items whose images are given by name as items whose images can be read.

        Raises:
            UserError: images are missing.
        """
        items = list(items)
        paths = self.locate(_file(key) for item in items for key in item.images)
        return Examples.from_items(
            (item._replace(images=tuple(_at(key, paths) for key in item.images)) for item in items),
            image_reader(self.image_root, self.fit),
        )


def _file(key: Hashable) -> str:
    """Return the name of the image in an `ImageKey`."""
    return key[0] if isinstance(key, tuple) else str(key)


def _at(key: Hashable, paths: dict[str, str]) -> Hashable:
    """Return an `ImageKey` with the path of its image for the name."""
    path = paths[_file(key)]
    return (path, *key[1:]) if isinstance(key, tuple) else path


class _Listing:
    """The folders below a root, each listed once."""

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
            self._names[folder] = list_names(self._root / folder)
        return self._names[folder]


def list_names(folder: Path, *, folders_only: bool = False) -> frozenset[str]:
    """Return the names of a folder's entries; none if there is no such folder.

    Raises:
        UserError: it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if not folders_only or entry.is_dir())
    except PermissionError as error:
        raise UserError(f"{folder} can't be read ({error.strerror}).") from error
    except (OSError, ValueError):  # not there, no folder, a name that can be none
        return frozenset()


def existing_folder(folder: str | Path, field: str = FOLDER_FIELD) -> Path:
    """Return the folder as a path, `~` expanded.

    Raises:
        UserError: it is not there.
    """
    path = expand(folder)
    reason = ""
    try:
        if str(folder) and stat.S_ISDIR(path.stat().st_mode):
            return path
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = f" ({getattr(error, 'strerror', None) or error})"
    raise UserError(f"{field}='{folder}' is no folder{reason}; name the one that holds the data.")


def first_existing(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of several places in a folder where there is anything, if there is one.

    Raises:
        UserError: the folder may not be looked into.
    """
    return next((folder / name for name in names if _exists(folder / name)), None)


def _exists(path: Path) -> bool:
    try:
        path.lstat()  # not what a link points to: a broken one is reported when it is read
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be looked for ({error}).") from error
    return True


@lru_cache
def image_endings() -> tuple[str, ...]:
    """Return how names of images end, in small letters: those of all formats Pillow reads."""
    formats = Image.registered_extensions().items()
    readable = {end for end, name in formats if name in Image.OPEN and name not in _UNREADABLE}
    return tuple(sorted(readable | {".spider"}))


def image_reader(root: Path, fit: str) -> partial[np.ndarray]:
    """Return the function that reads images below `root` by `ImageKey`, for `Examples.read`."""
    return partial(_read, root, fit)


def _read(root: Path, fit: str, key: ImageKey, size: int) -> np.ndarray:
    """Return an image or the part of it in the key's box, uint8 (size, size, 3).

    Raises:
        UserError: it can't be read, or nothing of it is in the box.
    """
    if isinstance(key, str):
        return read_image(root / key, size, fit)
    path, x, y, width, height = key
    image = open_image(root / path)
    left, top = max(x, 0), max(y, 0)
    right, bottom = min(x + width, image.width), min(y + height, image.height)
    if left >= right or top >= bottom:
        raise UserError(
            f"image {root / path} has {image.width}x{image.height} pixels, so that the box "
            f"{key[1:]} (x, y, width, height) holds none of it; is it the original image?"
        )
    return to_square(image.crop((left, top, right, bottom)), size, fit)
