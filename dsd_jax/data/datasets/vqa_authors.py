"""VQAv2 in the forms that the authors of the method made of it.

- train/other: vqa_text_train.csv, with pictures of train2014; shots/other are its first 5 % of
  rows, which is what they train on; test/other: vqa_text_test.csv, 1,000 rows of 198 pictures of
  val2014. Ten sentences per picture, the right one first. Wrong answers are any of VQA's, whatever
  the question ("What color is the hat? 5:25"); in one row of the test one of them is the right one,
  and in one it is empty. 386 of the test's rows are yes/no questions.
- test/binary: the 3,381 yes/no lines of test.txt (in their code vqav2/test3.txt), such as
  "COCO_val2014_000000119630.jpg*The question is asking about yes or no: are the suitcases for sale?
  the suitcases are not for sale". Nine wrong pictures are drawn from the other yes/no lines, here
  by seed and never one with the same sentence, which in theirs may be.
"""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import model_validator

from dsd_jax.data.annotation_fields import AnyText, Digits, FileRow, ImagePath, Text
from dsd_jax.data.annotation_files import not_empty, parse_rows, read_csv, read_text
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.examples import Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.negatives import draw_others
from dsd_jax.data.required_files import Piece, existing_folder, find_pieces
from dsd_jax.errors import UserError

SPLITS = ("shots/other", "train/other", "test/other", "test/binary")
FILES = {
    "shots/other": ("vqa_text_train.csv", "data/vqa_text_train.csv"),
    "train/other": ("vqa_text_train.csv", "data/vqa_text_train.csv"),
    "test/other": ("vqa_text_test.csv", "data/vqa_text_test.csv"),
    "test/binary": ("test.txt", "test3.txt", "data/test.txt"),
}
SOURCE = "https://github.com/eric-ai-lab/Discffusion (data/, and the link in its README)"
SHOTS = 0.05
WRONG = tuple(f"neg_sentence_{i}" for i in range(1, 10))
BINARY = "The question is asking about yes or no: "
MARK = "The question is asking about "


def load(folder: str, pictures: str, candidates: int, seed: int, fit: str, split: str) -> Examples:
    """The items of a split; which pictures are there is looked up at once, none is read."""
    root = existing_folder(folder)
    place = existing_folder(pictures, "pictures") if pictures else root
    year = "val2014" if split.startswith("test") else "train2014"
    folders = Piece(
        (year, f"images/{year}", "images", ""), f"http://images.cocodataset.org/zips/{year}.zip"
    )
    (path,) = find_pieces(root, [Piece(FILES[split], SOURCE)], place, folders)
    if split == "test/binary":
        rows = read_lines(path, candidates - 1, seed)
    else:
        rows = read_rows(path, year, candidates - 1)
        rows = rows[: int(SHOTS * len(rows))] if split == "shots/other" else rows
        not_empty(path, rows)
    wanted = (name for row in rows for name in row.pictures)
    found = locate(place, folders.names, wanted, folders.source)
    rows = [row._replace(pictures=tuple(found[name] for name in row.pictures)) for row in rows]
    return to_examples(rows, reader(place, fit))


class Line(FileRow):
    """A row of a csv; one of the real test's wrong answers is empty."""

    sentence: Text
    pos_image_id: Digits
    wrong: tuple[AnyText, ...]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, row: dict[str, str]) -> dict[str, Any]:
        return row | {"wrong": tuple(row[name] for name in WRONG)}


class Pair(FileRow):
    """A line of the text file: an image and what is said of it."""

    image: ImagePath
    caption: Text


def read_rows(path: Path, year: str, count: int) -> list[Row]:
    """One item per row of a csv, with pictures' names for keys."""
    if not 1 <= count <= len(WRONG):
        raise UserError(f"candidates is {count + 1}; {path} has 2 to {len(WRONG) + 1} of them.")
    found = []
    columns = ("sentence", "pos_image_id", *WRONG)
    for line in parse_rows(Line, read_csv(path, columns), path, "line"):
        captions = (line.sentence, *line.wrong[:count])
        name = f"COCO_{year}_{int(line.pos_image_id):012d}.jpg"
        found.append(Row(captions, (name,), "all", line.pos_image_id))
    return found


def read_lines(path: Path, count: int, seed: int) -> list[Row]:
    """One item per yes/no line of a text file, with pictures' names for keys."""
    lines = []
    for i, line in enumerate(read_text(path).split("\n"), 1):
        picture, star, text = line.strip().partition("*")
        if line.strip() and not (star and text.startswith(MARK)):
            raise UserError(f"{path}, line {i}: expected PICTURE*{MARK}...: SENTENCE.")
        if text.startswith(BINARY):
            lines.append((i, {"image": picture, "caption": text.removeprefix(BINARY)}))
    parsed = parse_rows(Pair, lines, path, "line")
    pairs = [(pair.image, pair.caption) for pair in parsed]
    not_empty(path, pairs)
    right = defaultdict(set)
    for picture, caption in pairs:
        right[caption].add(picture)
    pool = [picture for picture, _ in pairs]
    rows = []
    for number, (picture, caption) in enumerate(pairs):
        good = partial(is_wrong, right[caption])
        drawn = draw_others((seed, number), pool, count, good, "other pictures")
        rows.append(Row((caption,), (picture, *drawn), "yes/no", picture))
    return rows


def is_wrong(right: set[str], picture: str) -> bool:
    """Whether a picture is none that the caption was written for."""
    return picture not in right
