"""Prepared copies of any benchmark's splits: images decoded and resized once, then read from there.

A prepared split is a tensorflow-datasets folder in array_record that needs no TensorFlow. Each
different image is there once, as a PNG of the wanted size, and items refer to it by index. Beside
it lie checksums of the files that it was made of, by which later changes of these are noticed; the
check is cheap, and no proof.
"""

import hashlib
import json
import os
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.data.prepared_folder import build, open_records, prepared, read_prepared
from dsd_jax.errors import UserError
from dsd_jax.io.images import FITS, read_content
from dsd_jax.io.local_files import expand
from dsd_jax.io.progress import Stage, Work

STAMP_FILE = "source.json"  # in a prepared folder
_ANNOTATIONS = (".json", ".jsonl", ".csv", ".p", ".txt", ".parquet")
_WHOLE = 2**26  # bytes; of larger files the ends alone are read
_END = 2**20


class PreparedCopy(NamedTuple):
    """A benchmark whose splits are prepared in a folder.

    benchmark: what the items are read from, once.
    data_dir: what prepared splits are kept in.
    place: the folder in it for these settings.
    side: of the images, in pixels.
    source: the folder of the benchmark's own files, "" if there is none.
    """

    benchmark: Benchmark
    data_dir: Path
    place: Path
    side: int
    source: str

    def load(self, split: str) -> Examples:
        """Return the items of a split, prepared first if they are not.

        Files in the folder `source` that have changed since are named on stderr.

        Raises:
            UserError: the folder can't be written, or what is in it is damaged.
        """
        from dsd_jax.data.datasets.record_builders import Records  # takes seconds to import

        name, version = self.benchmark.name, str(Records.VERSION)
        place = self.place / split.replace("/", "-") / version

        def write(temporary: Path) -> Path:
            print(f"Preparing {name}'s {split} in {self.data_dir / place}, once.", file=sys.stderr)
            stamp = stamp_of(self.source) if self.source else {}
            examples = self.benchmark.load(split)
            if not examples.count:
                raise UserError(f"{name}'s split {split} is empty; check the settings.")
            count = len({key for images in examples.images for key in images})
            with Stage(f"preparing {split}", count) as stage:
                work, form = Work(stage, 1), "array_record"
                build(Records(examples, self.side, work=work, data_dir=temporary, file_format=form))
            folder = temporary / Records.name / version
            (folder / STAMP_FILE).write_text(json.dumps(stamp))
            return folder

        folder = prepared(self.data_dir, place, write)
        if self.source and (changed := changes(self.source, folder)):
            print(
                f"{folder} was prepared before {', '.join(changed[:3])} of {self.source} changed; "
                "delete it to have it prepared again.",
                file=sys.stderr,
            )
        with read_prepared(folder):
            return read_records(folder, self.side)


def with_prepared_copy(
    benchmark: Benchmark, data_dir: str, settings: Mapping[str, Any], side: int
) -> Benchmark:
    """Return the same benchmark, whose splits are prepared in a folder when first loaded.

    Args:
        benchmark: where the items come from, once.
        data_dir: what prepared splits are kept in.
        settings: all that the items depend on; others make another copy.
        side: the images' side in pixels.
    """
    text = json.dumps([dict(settings), side], sort_keys=True, default=list)
    place = Path(benchmark.name) / hashlib.sha256(text.encode()).hexdigest()[:16]
    source = settings.get("folder", "")
    copy = PreparedCopy(benchmark, expand(data_dir), place, side, source)
    return benchmark._replace(load=copy.load)


def read_records(folder: Path, side: int) -> Examples:
    """Return the items of a split prepared with images of a side; no image is decoded yet."""
    _, images = open_records(folder, "pictures", ["picture"])
    _, items = open_records(folder, "items", ["picture"])
    rows = (json.loads(items[i]["item"]) for i in range(len(items)))
    return Examples.from_items(
        [
            Example(tuple(captions), tuple(indices), kind, cluster)
            for captions, indices, kind, cluster in rows
        ],
        partial(read_record, images, side),
    )


def read_record(
    images: Sequence[Mapping[str, Any]], side: int, index: int, size: int
) -> np.ndarray:
    """Return an image, uint8 (size, size, 3), shrunk if it was prepared larger.

    Raises:
        UserError: it was prepared smaller, or is damaged.
    """
    if size > side:
        raise UserError(
            f"data.prepared_size is {side}, but images of {size} pixels are wanted; set it to "
            f"{size}."
        )
    return read_content(images[index]["picture"], size, FITS[0], f"prepared image {index}")


def check_prepared(data: Any, model_side: int, clip_side: int = 0) -> None:
    """Check that prepared images are large enough for the model and for CLIP.

    If they are larger than the model's, and so resized twice, a line on stderr says so.

    Args:
        data: the config's `data`.
        model_side: of the model's images, in pixels.
        clip_side: of CLIP's; 0 if there is none.

    Raises:
        UserError: they are smaller.
    """
    if not getattr(data, "prepared", ""):
        return
    side = data.prepared_size
    for whose, wanted in (("the model", model_side), ("CLIP", clip_side)):
        if side < wanted:
            raise UserError(
                f"data.prepared_size is {side}, but {whose} takes images of {wanted} pixels; set "
                f"it to {max(model_side, clip_side)}."
            )
    if side > model_side:
        print(
            f"data.prepared_size is {side} and the model's images have {model_side} pixels: they "
            "are resized twice, so that scores differ a little from those without data.prepared.",
            file=sys.stderr,
        )


def stamp_of(folder: str | os.PathLike) -> dict[str, list[int]]:
    """Return {path in `folder`: [size, checksum]} of annotation files in it and its `data/`.

    For a folder without such files, as one with a folder for each class, it is the number of
    entries of each folder in it and a checksum of their names. Times are left out: copying changes
    them.
    """
    try:
        return dict(_files(Path(folder))) or dict(_listings(Path(folder)))
    except OSError:  # not there any more, or not to be read: nothing is known of it
        return {}


def changes(folder: str | os.PathLike, prepared_folder: Path) -> list[str]:
    """Return the paths in `folder` that have changed since `prepared_folder` was made of it."""
    try:
        before = json.loads((prepared_folder / STAMP_FILE).read_text())
    except (OSError, ValueError):
        return []
    now = stamp_of(folder)
    return sorted(path for path, facts in now.items() if before.get(path, facts) != facts)


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
