"""Zero-shot classification: a picture among the captions that templates make of class names.

Either of two layouts:

    FOLDER/CLASS/*.jpg              any folder of folders, which is the split "all", or one more
    FOLDER/test/CLASS/*.jpg         level for splits (train, val, validation, test)
    FOLDER/dataset_info.json        a folder that tensorflow-datasets prepared, such as
                                    cifar10/3.0.2 or oxford_iiit_pet/4.0.0; written with
                                    file_format="array_record", so that no TensorFlow reads it

Names of classes are those of the folders (labels), with spaces for underscores. A file classes.txt
in the folder may say other ones, a line each: the folder's name, a tab, what to call it.

Captions are all classes', the right one first, the others in order. With several templates items
take turns: item i uses template i mod M for all its captions, so that an accuracy is the mean over
templates. (CLIP's ensembles average embeddings; a match score has none to average.)
"""

import io
import os
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.images import read_image
from dsd_jax.data.pictures import ENDINGS, list_folder, reader
from dsd_jax.data.pieces import existing_folder
from dsd_jax.data.rows import Row, to_examples
from dsd_jax.data.tables import read_text
from dsd_jax.errors import UserError

SPLITS = ("train", "val", "validation", "test")
INFO = "dataset_info.json"
NAMES = "classes.txt"
TEMPLATES = ("a photo of a {}.",)


def benchmark(folder: str, templates: Sequence[str] = TEMPLATES, fit: str = "stretch") -> Benchmark:
    """The folder's splits, or "all".

    Args:
        folder: what holds a folder per class, or what tensorflow-datasets prepared.
        templates: captions, with {} where the class's name goes.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: the folder isn't there, or a template has no {}.
    """
    if not templates or any(template.count("{}") != 1 for template in templates):
        raise UserError(f"templates are {tuple(templates)}; expected texts with one {{}} each.")
    root = existing_folder(folder)
    if (root / INFO).exists():
        builder = open_prepared(root)
        load = partial(load_prepared, root, builder, templates, fit)
        return Benchmark(builder.name, tuple(builder.info.splits), load)
    splits = tuple(split for split in SPLITS if (root / split).is_dir())
    load = partial(load_folders, root, templates, fit)
    return Benchmark("classify", splits or ("all",), load)


def load_folders(root: Path, templates: Sequence[str], fit: str, split: str) -> Examples:
    """The items of a folder of folders, in the order of their names."""
    place = root / split if split != "all" else root
    with os.scandir(place) as entries:
        classes = sorted(entry.name for entry in entries if entry.is_dir())
    pictures = {
        label: sorted(f for f in list_folder(place / label) if f.lower().endswith(ENDINGS))
        for label in classes
    }
    classes = [label for label in classes if pictures[label]]
    if len(classes) < 2:
        raise UserError(
            f"{place} has {len(classes)} folders with pictures ({', '.join(ENDINGS)}); expected "
            "one for each of two or more classes."
        )
    labels = [number for number, label in enumerate(classes) for _ in pictures[label]]
    keys = [f"{label}/{file}" for label in classes for file in pictures[label]]
    rows = to_rows(labels, keys, names_of(root, classes), templates)
    return to_examples(rows, reader(place, fit))


def names_of(root: Path, classes: Sequence[str]) -> list[str]:
    """What to call the classes.

    Raises:
        UserError: classes.txt does not say it of each.
    """
    if not (root / NAMES).exists():
        return [label.replace("_", " ") for label in classes]
    lines = [line.split("\t") for line in read_text(root / NAMES).splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{root / NAMES}: expected lines of a folder's name, a tab and a name.")
    said = {label: name.strip() for label, name in lines}
    lacking = [label for label in classes if not said.get(label)]
    if lacking:
        raise UserError(f"{root / NAMES} says no name for {', '.join(lacking[:5])}; add a line.")
    return [said[label] for label in classes]


def to_rows(
    labels: Sequence[int], keys: Sequence[Any], names: Sequence[str], templates: Sequence[str]
) -> list[Row]:
    """One item per picture; those of one class and template share one tuple of captions."""
    captions = {}
    rows = []
    for number, (label, key) in enumerate(zip(labels, keys, strict=True)):
        which = number % len(templates)
        if (label, which) not in captions:
            ordered = [names[label], *names[:label], *names[label + 1 :]]
            captions[label, which] = tuple(templates[which].format(name) for name in ordered)
        rows.append(Row(captions[label, which], (key,), names[label], number))
    return rows


def open_prepared(root: Path) -> Any:
    """The builder of a folder that tensorflow-datasets prepared.

    Raises:
        UserError: it is damaged, in a format that needs TensorFlow, or not of labelled pictures.
    """
    import tensorflow_datasets as tfds  # takes seconds

    try:
        builder = tfds.builder_from_directory(root)
        features, form = builder.info.features, builder.info.file_format.value
        labels = features["label"].names if "image" in features and "label" in features else None
    except Exception as error:  # whatever is in it
        raise UserError(f"{root} is not as tensorflow-datasets prepares it ({error}).") from error
    if form != "array_record":
        raise UserError(
            f"{root} was prepared as {form}, which only TensorFlow reads; prepare it again with "
            'file_format="array_record".'
        )
    if not labels:
        raise UserError(f"{root} has no features image and label with names of classes.")
    return builder


def load_prepared(
    root: Path, builder: Any, templates: Sequence[str], fit: str, split: str
) -> Examples:
    """The items of a split, in the order of its records; no picture is decoded yet."""
    import tensorflow_datasets as tfds

    as_bytes = {"image": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(split, decoders=as_bytes)
    labels = [int(source[i]["label"]) for i in range(len(source))]
    classes = builder.info.features["label"].names
    rows = to_rows(labels, range(len(labels)), names_of(root, classes), templates)
    return to_examples(rows, partial(read_record, root, source, fit))


def read_record(
    root: Path, source: Sequence[Mapping[str, Any]], fit: str, number: int, size: int
) -> np.ndarray:
    """The picture of a record, uint8 (size, size, 3)."""
    try:
        return read_image(Image.open(io.BytesIO(source[number]["image"])), size, fit)
    except (OSError, UserError) as error:
        raise UserError(f"picture {number} of {root} cannot be read ({error}).") from error
