"""Noticing that the files a prepared copy was made of have changed since; cheap, and no proof."""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

FILE = "source.json"  # in a prepared folder
_ANNOTATIONS = (".json", ".jsonl", ".csv", ".p", ".txt", ".parquet")
_WHOLE = 2**26  # bytes; of larger files the ends alone are read
_END = 2**20


def stamp(folder: str | os.PathLike) -> dict[str, list[int]]:
    """Return {path in `folder`: [size, checksum]} of annotation files in it and its `data/`.

    Of a folder without such files, as one with a folder for each class, it is the number of entries
    of each folder in it and a checksum of their names. Times are left out: copying changes them.
    """
    try:
        return dict(_files(Path(folder))) or dict(_listings(Path(folder)))
    except OSError:  # not there any more, or not to be read: nothing is known of it
        return {}


def changes(folder: str | os.PathLike, prepared: Path) -> list[str]:
    """Return the paths in `folder` that are not as they were when `prepared` was made of it."""
    try:
        then = json.loads((prepared / FILE).read_text())
    except (OSError, ValueError):
        return []
    now = stamp(folder)
    return sorted(path for path, facts in now.items() if then.get(path, facts) != facts)


def _files(root: Path) -> Iterator[tuple[str, list[int]]]:
    for folder in (root, root / "data"):
        if folder.is_dir():
            for path in folder.iterdir():
                if path.suffix in _ANNOTATIONS and path.is_file():
                    yield str(path.relative_to(root)), _facts(path)


def _facts(path: Path) -> list[int]:
    size = path.stat().st_size
    with open(path, "rb") as file:
        if size <= _WHOLE:
            return [size, zlib.crc32(file.read())]
        start = zlib.crc32(file.read(_END))
        file.seek(-_END, os.SEEK_END)
        return [size, zlib.crc32(file.read(), start)]


def _listings(root: Path) -> Iterator[tuple[str, list[int]]]:
    for path in root.iterdir():
        if path.is_dir():
            names = sorted(os.listdir(path))
            yield path.name, [len(names), zlib.crc32(os.fsencode("\n".join(names)))]
