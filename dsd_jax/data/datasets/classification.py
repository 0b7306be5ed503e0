"""Zero-shot classification: an image among the captions that templates make of class names.

Either of two layouts:

    FOLDER/CLASS/*.jpg              any folder of folders, which is the split "all", or one more
    FOLDER/test/CLASS/*.jpg         level for splits (train, val, valid, validation, dev, test)
    FOLDER/dataset_info.json        a folder that tensorflow-datasets prepared, such as
                                    cifar10/3.0.2 or oxford_iiit_pet/4.0.0; written with
                                    file_format="array_record", so that no TensorFlow reads it

Names of classes are those of the folders (labels), with spaces for underscores. A file classes.txt
in the folder may say other ones, a line each: the folder's name, a tab, what to call it.

Captions are all classes', the right one first, the others in order. With several templates items
take turns: item i uses template i mod M for all its captions, so that an accuracy is the mean over
templates. (CLIP's ensembles average embeddings; a match score has none to average.)
"""

import os
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.data.annotation_files import read_text
from dsd_jax.data.data_folder import existing_folder, image_endings, image_reader, list_names
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.data.prepared_folder import open_records
from dsd_jax.errors import UserError
from dsd_jax.io.images import read_content
from dsd_jax.io.terminal import shorten

SPLITS = ("train", "val", "valid", "validation", "dev", "test")  # names of folders
INFO = "dataset_info.json"
NAMES = "classes.txt"
# What Macs, NAS boxes and archives put beside classes; names that begin with a dot are no classes
# either: .ipynb_checkpoints, .Trash-0, ._1.jpg.
_NO_CLASSES = ("@eaDir", "__MACOSX", "lost+found", "$RECYCLE.BIN", "System Volume Information")
_NAMED = 3  # files left out, in a message
TEMPLATES = ("a photo of a {}.",)


def benchmark(folder: str, templates: Sequence[str] = TEMPLATES, fit: str = "stretch") -> Benchmark:
    """Open the folder's splits, or "all".

    Args:
        folder: what holds a folder per class, or what tensorflow-datasets prepared.
        templates: captions, with {} where the class's name goes.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: the folder isn't there, or a template has no {}.
    """
    check_templates(templates)
    root = existing_folder(folder)
    if (root / INFO).exists():
        builder = open_prepared(root)
        load = partial(load_prepared, root, templates, fit)
        return Benchmark(builder.name, tuple(builder.info.splits), load)
    splits = tuple(split for split in SPLITS if split in list_names(root, folders_only=True))
    load = partial(load_folders, root, templates, fit)
    return Benchmark("classify", splits or ("all",), load)


def check_templates(templates: Sequence[str]) -> None:
    """Refuse templates that do not have one {} and no other braces.

    Raises:
        UserError: they are no such texts.
    """
    if isinstance(templates, str) or not templates or not all(map(_is_template, templates)):
        named = shorten(templates if isinstance(templates, str) else tuple(templates))
        raise UserError(f"templates are {named}; expected texts with one {{}} each.")


def _is_template(text: Any) -> bool:
    if not isinstance(text, str) or any("\ud800" <= char <= "\udfff" for char in text):
        return False
    return text.count("{}") == 1 and not set(text.replace("{}", "")) & set("{}")


def load_folders(root: Path, templates: Sequence[str], fit: str, split: str) -> Examples:
    """Return the items of a folder of folders, in the order of their names.

    Raises:
        UserError: there are not two classes with images, or a folder can't be read.
    """
    place = root / split if split != "all" else root
    folders = sorted(list_names(place, folders_only=True))
    classes = [name for name in folders if name not in _NO_CLASSES and not name.startswith(".")]
    images: dict[str, list[str]] = {}
    others: list[str] = []
    for label in classes:
        names = [name for name in sorted(list_names(place / label)) if not name.startswith(".")]
        deeper = list_names(place / label, folders_only=True)
        images[label] = [
            name for name in names if name.lower().endswith(image_endings()) and name not in deeper
        ]
        others += [f"{label}/{name}" for name in sorted(set(names).difference(images[label]))]
    classes = [label for label in classes if images[label]]
    if len(classes) < 2:
        hint = f" Its folders are {', '.join(folders[:10])}." if folders else ""
        raise UserError(
            f"{place} has {len(classes)} folders with images (.jpg, .png, ...); expected one for "
            f"each of two or more classes.{hint}"
        )
    _report_others(place, others)
    labels = [number for number, label in enumerate(classes) for _ in images[label]]
    keys = [f"{label}/{file}" for label in classes for file in images[label]]
    items = to_items(labels, keys, class_names(root, classes), templates)
    return Examples.from_items(items, image_reader(place, fit))


def _report_others(place: Path, others: Sequence[str]) -> None:
    """Report on stderr which files in class folders are left out."""
    if others:
        deeper = [name for name in others if os.path.isdir(place / name)]
        named = ", ".join(others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        hint = "; images must lie in the class's folder itself" if deeper else ""
        print(
            f"{place}: {len(others):,} files and folders ({len(deeper):,}) in class folders are "
            f"left out, for by their names they are no images: {named}{hint}.",
            file=sys.stderr,
        )


def class_names(root: Path, classes: Sequence[str]) -> list[str]:
    """Return the names of the classes in captions.

    Raises:
        UserError: classes.txt does not name each.
    """
    odd = [label for label in classes if any("\ud800" <= char <= "\udfff" for char in label)]
    if odd:
        raise UserError(f"{root}: the name of the folder {odd[0]!a} is no UTF-8; rename it.")
    if not (root / NAMES).exists():
        return [label.replace("_", " ") for label in classes]
    lines = [line.split("\t") for line in read_text(root / NAMES).splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):
        raise UserError(f"{root / NAMES}: expected lines of a folder's name, a tab and a name.")
    names = {label: name.strip() for label, name in lines}
    missing = [label for label in classes if not names.get(label)]
    if missing:
        raise UserError(f"{root / NAMES} says no name for {', '.join(missing[:5])}; add a line.")
    return [names[label] for label in classes]


def to_items(
    labels: Sequence[int], keys: Sequence[Any], names: Sequence[str], templates: Sequence[str]
) -> list[Example]:
    """Return one item per image; those of one class and template share one tuple of captions."""
    captions = {}
    items = []
    for number, (label, key) in enumerate(zip(labels, keys, strict=True)):
        template = number % len(templates)
        if (label, template) not in captions:
            ordered = [names[label], *names[:label], *names[label + 1 :]]
            captions[label, template] = tuple(
                templates[template].replace("{}", name) for name in ordered
            )
        items.append(Example(captions[label, template], (key,), names[label], number))
    return items


def open_prepared(root: Path) -> Any:
    """Return the builder of a folder that tensorflow-datasets prepared.

    Raises:
        UserError: it is damaged, in a format that needs TensorFlow, or not of labeled images.
    """
    import tensorflow_datasets as tfds  # takes seconds
    from google.protobuf import json_format

    try:
        builder: Any = tfds.builder_from_directory(root)
        features, form = builder.info.features, builder.info.file_format.value
        labels = features["label"].names if "image" in features and "label" in features else None
    except (ValueError, LookupError, TypeError, OSError, json_format.Error) as error:
        raise UserError(f"{root} is not as tensorflow-datasets prepares it ({error}).") from error
    if form != "array_record":
        raise UserError(
            f"{root} was prepared as {form}, which only TensorFlow reads; prepare it again with "
            'file_format="array_record".'
        )
    if not labels:
        raise UserError(f"{root} has no features image and label with names of classes.")
    return builder


def load_prepared(root: Path, templates: Sequence[str], fit: str, split: str) -> Examples:
    """Return the items of a split, in the order of its records; no image is decoded yet."""
    builder, source = open_records(root, split, ["image"])
    labels = [int(source[i]["label"]) for i in range(len(source))]
    if min(labels, default=0) < 0:
        raise UserError(f"{root}'s split {split} has no labels; choose another split.")
    classes = builder.info.features["label"].names
    items = to_items(labels, range(len(labels)), class_names(root, classes), templates)
    return Examples.from_items(items, partial(read_record, root, source, fit))


def read_record(
    root: Path, source: Sequence[Mapping[str, Any]], fit: str, number: int, size: int
) -> np.ndarray:
    """Return the image of a record, uint8 (size, size, 3)."""
    name = f"image {number} of {root}"
    try:
        content = source[number]["image"]
    except (ValueError, LookupError, OSError, RuntimeError) as error:  # array_record's own
        raise UserError(f"{name} cannot be read ({error}).") from error
    return read_content(content, size, fit, name)
