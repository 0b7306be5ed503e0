"""Your own images and captions: one folder with `captions.jsonl` or `captions.csv`.

One row or line per item; an image is a path below the folder.

    captions.jsonl   {"image": "a.jpg", "caption": "a cat", "wrong_captions": ["a dog"],
                      "kind": "animals", "split": "test"}
    captions.csv     image,caption,wrong_caption_1,...,kind,split

Each row needs `image` and `caption`. Wrong candidates are either given (`wrong_captions`,
or `wrong_images`; equally many in all rows) or drawn from other rows by seed. `kind` (a name per
row, by which results are told apart) and `split` are optional; without `split` there is "all".
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import field_validator

from dsd_jax.data.annotation_files import (
    FileRow,
    ImagePath,
    Name,
    Text,
    not_empty,
    parse_rows,
    read_csv,
    read_json_lines,
)
from dsd_jax.data.data_folder import FOLDER_FIELD, DataFolder, RequiredFile, first_existing
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.data.negatives import Negatives
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import List

FILES = ("captions.jsonl", "captions.csv")
WRONG = ("given", "captions", "pictures")

_WRONG_COLUMN = re.compile("(wrong_caption|wrong_image)_[0-9]+")
_MISSPELT_COLUMN = re.compile("wrong_?(captions?|images?|texts?|pictures?)?_?[0-9]*")
_LONGEST_SPLIT = 100  # characters; splits name folders


class Entry(FileRow):
    """A row of the file."""

    image: ImagePath
    caption: Text
    wrong_captions: List[Text] = ()
    wrong_images: List[ImagePath] = ()
    kind: Name = "all"
    split: Name = "all"

    @field_validator("wrong_captions", "wrong_images", mode="before")
    @classmethod
    def _none_are_none(cls, value: Any) -> Any:
        return () if value is None else value

    @field_validator("split")
    @classmethod
    def _check_split(cls, split: str) -> str:
        if not re.fullmatch(r"[\w-]+", split) or len(split) > _LONGEST_SPLIT:
            raise ValueError(f"is {shorten(split)}, expected a name of letters, digits, _ and -")
        return split

    def to_example(self) -> Example:
        """Return the row's item, its images by name."""
        images = (self.image, *self.wrong_images)
        return Example((self.caption, *self.wrong_captions), images, self.kind, self.image)


def benchmark(
    folder: str, *, wrong: str = "given", candidates: int = 10, seed: int = 0, fit: str = "stretch"
) -> Benchmark:
    """Open the splits that the file names, or "all".

    Args:
        folder: what holds the images and the captions' file.
        wrong: "given" in the file, or drawn from the split's other rows: "captions" or "pictures".
        candidates: how many captions (images) an item has if wrong ones are drawn.
        seed: what they are drawn by.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: no such file, or a row is not as described.
    """
    if wrong not in WRONG:
        raise UserError(f"wrong is '{wrong}'; expected {', '.join(WRONG)}.")
    negatives = Negatives.beside_right(candidates, seed)
    place = DataFolder.open(folder, RequiredFile(("",), ""), fit=fit)
    path = first_existing(place.root, FILES)
    if path is None:
        names = " or ".join(FILES)
        raise UserError(
            f"{place.root} has no {names}; write one row per image into it, or name another "
            f"folder by {FOLDER_FIELD}."
        )
    entries = read_entries(path)

    def load(split: str) -> Examples:
        selected = not_empty(path, [entry for entry in entries if entry.split == split])
        if wrong == "given":
            check_given(path, selected)
            return place.examples(entry.to_example() for entry in selected)
        return place.examples(with_drawn(selected, wrong, negatives))

    return Benchmark("own", tuple(dict.fromkeys(entry.split for entry in entries)), load)


def read_entries(path: Path) -> list[Entry]:
    """Return all rows of the file.

    Raises:
        UserError: a row is not as described.
    """
    if path.suffix == ".csv":
        table = read_csv(path, ("image", "caption"))
        rows = [(line, from_columns(row, path)) for line, row in table]
    else:
        rows = read_json_lines(path)
    return list(parse_rows(Entry, rows, path, "line"))


def from_columns(row: dict[str, str], path: Path) -> dict[str, Any]:
    """Return a csv's row as a line of JSON has it: wrong_caption_1, ... become one list.

    Raises:
        UserError: a column is meant for wrong candidates and has another name.
    """
    fields: dict[str, Any] = {}
    for name, value in row.items():
        if not _WRONG_COLUMN.fullmatch(name):
            if _MISSPELT_COLUMN.fullmatch(name.strip().lower()):
                raise UserError(
                    f"{path}: column {shorten(name)} is not known; wrong candidates stand in "
                    "wrong_caption_1, wrong_caption_2, ... or wrong_image_1, ..."
                )
            fields[name] = value
        elif value:
            fields.setdefault(f"{name.rpartition('_')[0]}s", []).append(value)
    return fields


def check_given(path: Path, entries: Sequence[Entry]) -> None:
    """Check that each row has wrong candidates of one sort, and all rows equally many.

    Raises:
        UserError: they do not, or a wrong candidate is the right one.
    """
    for entry in entries:
        if entry.caption in entry.wrong_captions or entry.image in entry.wrong_images:
            raise UserError(
                f"{path}: a wrong candidate of {entry.image} ({shorten(entry.caption)}) is the "
                "right one too, so that nothing tells them apart; give another one."
            )
    counts = {(len(entry.wrong_captions), len(entry.wrong_images)) for entry in entries}
    captions, images = min(counts)
    if len(counts) > 1 or (captions > 0) == (images > 0):
        rows = ", ".join(f"{captions}+{images}" for captions, images in sorted(counts))
        raise UserError(
            f"{path}: rows have {rows} wrong captions + images; give all rows equally many of "
            "one sort, or have them drawn (--config.data.wrong=captions or pictures)."
        )


def with_drawn(entries: Sequence[Entry], wrong: str, negatives: Negatives) -> list[Example]:
    """Return items with wrong candidates from other rows.

    A caption of the same image is no wrong one, and neither is an image with the same caption.
    """
    pairs = [(entry.image, entry.caption) for entry in entries]
    if wrong == "captions":
        field, drawn = "wrong_captions", negatives.draw_captions(pairs)
    else:
        field, drawn = "wrong_images", negatives.draw_images(pairs)
    nothing = {"wrong_captions": (), "wrong_images": ()}
    return [
        entry.model_copy(update=nothing | {field: tuple(others)}).to_example()
        for entry, others in zip(entries, drawn, strict=True)
    ]
