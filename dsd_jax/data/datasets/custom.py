"""Your own pictures and captions: one folder with `captions.jsonl` or `captions.csv`.

One row or line per item; a picture is a path below the folder.

    captions.jsonl   {"image": "a.jpg", "caption": "a cat", "wrong_captions": ["a dog"],
                      "kind": "animals", "split": "test"}
    captions.csv     image,caption,wrong_caption_1,...,kind,split

What each row needs is `image` and `caption`. Wrong candidates are either given (`wrong_captions`,
or `wrong_images`; equally many in all rows) or drawn from other rows by seed. `kind` (a name per
row, by which results are told apart) and `split` are optional; without `split` there is "all".
"""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import field_validator

from dsd_jax.data.annotation_fields import FileRow, ImagePath, Name, Text
from dsd_jax.data.annotation_files import not_empty, parse_rows, read_csv, read_json_lines
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.negatives import draw_others
from dsd_jax.data.required_files import existing_folder, first_existing
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import List

FILES = ("captions.jsonl", "captions.csv")
WRONG = ("given", "captions", "pictures")


_WRONG_COLUMN = re.compile("(wrong_caption|wrong_image)_[0-9]+")
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


def benchmark(
    folder: str, wrong: str = "given", candidates: int = 10, seed: int = 0, fit: str = "stretch"
) -> Benchmark:
    """The splits that the file names, or "all".

    Args:
        folder: what holds the pictures and the captions' file.
        wrong: "given" in the file, or drawn from the split's other rows: "captions" or "pictures".
        candidates: how many captions (pictures) an item has if wrong ones are drawn.
        seed: what they are drawn by.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: no such file, or a row is not as described.
    """
    if wrong not in WRONG:
        raise UserError(f"wrong is '{wrong}'; expected {', '.join(WRONG)}.")
    if candidates < 2:
        raise UserError(f"candidates is {candidates}; expected 2 or more, the right one included.")
    root = existing_folder(folder)
    path = first_existing(root, FILES)
    if path is None:
        raise UserError(f"{root} has no {' or '.join(FILES)}; write one row per picture into it.")
    entries = read_entries(path)
    splits = tuple(dict.fromkeys(entry.split for entry in entries))
    load = partial(load_split, root, path, entries, wrong, candidates, seed, fit)
    return Benchmark("own", splits, load)


def read_entries(path: Path) -> list[Entry]:
    """Return all rows of the file.

    Raises:
        UserError: a row is not as described.
    """
    if path.suffix == ".csv":
        table = read_csv(path, ("image", "caption"))
        rows = [(line, from_columns(row)) for line, row in table]
    else:
        rows = read_json_lines(path)
    return list(parse_rows(Entry, rows, path, "line"))


def from_columns(row: dict[str, str]) -> dict[str, Any]:
    """Return a csv's row as a line of JSON has it: wrong_caption_1, ... become one list."""
    found: dict[str, Any] = {}
    for name, value in row.items():
        if not _WRONG_COLUMN.fullmatch(name):
            found[name] = value
        elif value:
            found.setdefault(f"{name.rpartition('_')[0]}s", []).append(value)
    return found


def to_entry(path: Path, place: str, line: dict[str, Any]) -> Entry:
    """Return a row, checked."""
    noun, _, number = place.partition(" ")
    return next(parse_rows(Entry, [(number, line)], path, noun))


def load_split(
    root: Path,
    path: Path,
    entries: Sequence[Entry],
    wrong: str,
    candidates: int,
    seed: int,
    fit: str,
    split: str,
) -> Examples:
    """The items of a split."""
    chosen = not_empty(path, [entry for entry in entries if entry.split == split])
    if wrong == "given":
        check_given(path, chosen)
    else:
        chosen = with_drawn(chosen, wrong, candidates - 1, seed)
    names = (name for entry in chosen for name in (entry.image, *entry.wrong_images))
    found = locate(root, ("",), names, "you")
    return to_examples((to_row(entry, found) for entry in chosen), reader(root, fit))


def check_given(path: Path, entries: Sequence[Entry]) -> None:
    """Each row must have wrong candidates of one sort, all rows equally many."""
    for entry in entries:
        if entry.caption in entry.wrong_captions or entry.image in entry.wrong_images:
            raise UserError(
                f"{path}: a wrong candidate of {entry.image} ({shorten(entry.caption)}) is the "
                "right one too, so that nothing tells them apart; give another one."
            )
    counts = {(len(entry.wrong_captions), len(entry.wrong_images)) for entry in entries}
    captions, images = min(counts)
    if len(counts) > 1 or (captions > 0) == (images > 0):
        told = ", ".join(f"{captions}+{images}" for captions, images in sorted(counts))
        raise UserError(
            f"{path}: rows have {told} wrong captions + pictures; give all rows equally many of "
            "one sort, or have them drawn (wrong=captions or wrong=pictures)."
        )


def with_drawn(entries: Sequence[Entry], wrong: str, count: int, seed: int) -> list[Entry]:
    """The rows with wrong candidates from others, never one that is right elsewhere for the same.

    A caption of the same picture is no wrong one, and neither is a picture with the same caption.
    """
    right = {(entry.image, entry.caption) for entry in entries}
    of_captions = wrong == "captions"
    pool = [entry.caption if of_captions else entry.image for entry in entries]
    found = []
    for number, entry in enumerate(entries):
        fixed = {"image": entry.image} if of_captions else {"caption": entry.caption}
        good = partial(fits_not, right, **fixed)
        drawn = tuple(draw_others((seed, number), pool, count, good, f"other {wrong}"))
        texts, images = (drawn, ()) if of_captions else ((), drawn)
        found.append(entry.model_copy(update={"wrong_captions": texts, "wrong_images": images}))
    return found


def fits_not(right: set, other: str, image: str = "", caption: str = "") -> bool:
    """Whether another caption (picture) is wrong for the picture (caption)."""
    return (image or other, caption or other) not in right


def to_row(entry: Entry, found: dict[str, str]) -> Row:
    """One item."""
    pictures = tuple(found[name] for name in (entry.image, *entry.wrong_images))
    return Row((entry.caption, *entry.wrong_captions), pictures, entry.kind, entry.image)
