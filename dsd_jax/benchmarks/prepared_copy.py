"""Any benchmark's split as array_record: pictures decoded and resized once, then read from there.

A prepared split is a tensorflow-datasets folder that needs no TensorFlow. Each different picture is
there once, as a PNG of the wanted size, and items refer to it by number.
"""

import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.benchmarks.source_stamp import FILE, changes, stamp
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.prepared_folder import build, prepared, read_prepared
from dsd_jax.errors import UserError
from dsd_jax.io.images import FITS, read_content
from dsd_jax.io.local_files import expand


def with_records(
    benchmark: Benchmark, data_dir: str, settings: Mapping[str, Any], size: int
) -> Benchmark:
    """The same benchmark, whose splits are prepared in a folder when first loaded.

    Args:
        benchmark: where the items come from, once.
        data_dir: what prepared splits are kept in.
        settings: all that the items depend on; others make another copy.
        size: the pictures' side in pixels.
    """
    text = json.dumps([dict(settings), size], sort_keys=True, default=list)
    place = Path(benchmark.name) / hashlib.sha256(text.encode()).hexdigest()[:16]
    source = settings.get("folder", "")
    load = partial(load_prepared, benchmark.load, expand(data_dir), place, size, source)
    return Benchmark(benchmark.name, benchmark.splits, load)


def load_prepared(
    load: Callable[[str], Examples],
    data_dir: Path,
    place: Path,
    size: int,
    source: str,
    split: str,
) -> Examples:
    """Return the items of a split, prepared first if they are not.

    Files in the folder `source` that have changed since are named on stderr.

    Raises:
        UserError: the folder can't be written, or what is in it is damaged.
    """
    from dsd_jax.benchmarks.prepared_copy_builder import Records  # takes seconds to import

    version = str(Records.VERSION)
    place = place / split.replace("/", "-") / version

    def write(temporary: Path) -> Path:
        print(f"Preparing {place.parts[0]}'s {split} in {data_dir / place}, once.", file=sys.stderr)
        facts = stamp(source) if source else {}
        examples = load(split)
        if not examples.count:
            raise UserError(f"{place.parts[0]}'s split {split} is empty; check the settings.")
        build(Records(examples, size, data_dir=temporary, file_format="array_record"))
        (temporary / Records.name / version / FILE).write_text(json.dumps(facts))
        return temporary / Records.name / version

    folder = prepared(data_dir, place, write)
    if source and (changed := changes(source, folder)):
        print(
            f"{folder} was prepared before {', '.join(changed[:3])} of {source} changed; delete it "
            "to have it prepared again.",
            file=sys.stderr,
        )
    with read_prepared(folder):
        return read_records(folder, size)


def read_records(folder: Path, side: int) -> Examples:
    """The items of a split prepared with pictures of a side; no picture is decoded yet."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    as_bytes = {"picture": tfds.decode.SkipDecoding()}
    pictures = builder.as_data_source("pictures", decoders=as_bytes)
    items = builder.as_data_source("items", decoders=as_bytes)
    rows = (json.loads(items[i]["item"]) for i in range(len(items)))
    found = [
        Row(tuple(captions), tuple(numbers), kind, cluster)
        for captions, numbers, kind, cluster in rows
    ]
    return to_examples(found, partial(read_picture, pictures, side))


def read_picture(pictures: Any, side: int, number: int, size: int) -> np.ndarray:
    """Return the picture of a number, uint8 (size, size, 3), shrunk if it was prepared larger.

    Raises:
        UserError: it was prepared smaller, or is damaged.
    """
    if size > side:
        raise UserError(
            f"data.prepared_size is {side}, but pictures of {size} pixels are wanted; set it to "
            f"{size}."
        )
    return read_content(pictures[number]["picture"], size, FITS[0], f"prepared picture {number}")


def check_prepared(data: Any, model_side: int, clip_side: int = 0) -> None:
    """Check that prepared pictures are large enough for the model and for CLIP.

    That they are larger than the model's, and so resized twice, is told on stderr.

    Args:
        data: the config's `data`.
        model_side: of the model's pictures, in pixels.
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
                f"data.prepared_size is {side}, but {whose} takes pictures of {wanted} pixels; set "
                f"it to {max(model_side, clip_side)}."
            )
    if side > model_side:
        print(
            f"data.prepared_size is {side} and the model's pictures have {model_side} pixels: they "
            "are resized twice, so that scores differ a little from those without data.prepared.",
            file=sys.stderr,
        )
