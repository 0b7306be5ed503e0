"""Any benchmark's split as array_record: pictures decoded and resized once, then read from there.

A prepared split is a tensorflow-datasets folder that needs no TensorFlow. Each different picture is
there once, as a PNG of the wanted size, and items refer to it by number.
"""

import hashlib
import io
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.images import read_image
from dsd_jax.data.preparation import build, prepared
from dsd_jax.data.rows import Row, to_examples
from dsd_jax.errors import UserError


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
    load = partial(load_prepared, benchmark.load, Path(data_dir).expanduser(), place, size)
    return Benchmark(benchmark.name, benchmark.splits, load)


def load_prepared(
    load: Callable[[str], Examples], data_dir: Path, place: Path, size: int, split: str
) -> Examples:
    """The items of a split, prepared first if they are not.

    Raises:
        UserError: the folder can't be written, or what is in it is damaged.
    """
    from dsd_jax.data.records_builder import Records  # takes seconds to import

    version = str(Records.VERSION)
    place = place / split.replace("/", "-") / version

    def write(temporary: Path) -> Path:
        print(f"Preparing {place.parts[0]}'s {split} in {data_dir / place}, once.", file=sys.stderr)
        examples = load(split)
        if not examples.count:
            raise UserError(f"{place.parts[0]}'s split {split} is empty; check the settings.")
        build(Records(examples, size, data_dir=temporary, file_format="array_record"))
        return temporary / Records.name / version

    folder = prepared(data_dir, place, write)
    try:
        return read_records(folder, size)
    except Exception as error:
        raise UserError(f"{folder} is damaged ({error}): delete it and run again.") from error


def read_records(folder: Path, side: int) -> Examples:
    """The items of a split prepared with pictures of a side; no picture is decoded yet."""
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    as_bytes = {"picture": tfds.decode.SkipDecoding()}
    pictures = builder.as_data_source("pictures", decoders=as_bytes)
    items = builder.as_data_source("items", decoders=as_bytes)
    for name, found in (("pictures", pictures), ("items", items)):
        if len(found) != builder.info.splits[name].num_examples:
            raise ValueError(f"{len(found)} {name}")
    rows = (json.loads(items[i]["item"]) for i in range(len(items)))
    found = [
        Row(tuple(captions), tuple(numbers), kind, cluster)
        for captions, numbers, kind, cluster in rows
    ]
    return to_examples(found, partial(read_picture, pictures, side))


def read_picture(pictures: Any, side: int, number: int, size: int) -> np.ndarray:
    """The picture of a number, uint8 (size, size, 3).

    Raises:
        UserError: they were prepared in another size; to resize them twice would change scores.
    """
    if size != side:
        raise UserError(
            f"data.prepared_size is {side}, but the model's pictures are {size} pixels; set it so."
        )
    return read_image(Image.open(io.BytesIO(pictures[number]["picture"])), size)
