"""RefCOCOg: a COCO picture, and the sentence of one of its objects among nine of other pictures.

Files as people have them, in one folder (the `refer` API's data/refcocog):

    refs(umd).p        Python 2 pickle, a list of objects with their sentences, split train, val and
                       test, no picture in two of them; or refs(google).p, split train and val by
                       objects, so that pictures are in both. From refcocog.zip,
                       https://github.com/lichengunc/refer (Apache 2.0)
    instances.json     the COCO annotations of the same zip: which picture has which number
    images/train2014/  COCO's pictures, COCO_train2014_000000380440.jpg (CC BY 4.0 annotations,
                       Flickr's terms), http://images.cocodataset.org/zips/train2014.zip

An item is a sentence (its `raw`, as the authors take it). The refs' own `file_name` has the number
of the annotation at its end (COCO_train2014_000000380440_491042.jpg); no such picture exists, so
pictures' names are those of instances.json. Wrong sentences are drawn by seed from objects in other
pictures of the same split, and are never words of the right picture. The authors draw from all
objects of all splits, of the same picture and even of the same object too, by no seed.
"""

from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from dsd_jax.data.annotation_fields import FileRow, ImagePath, Number, Text
from dsd_jax.data.annotation_files import not_empty, parse_rows, parse_whole, read_json
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.negatives import draw_others
from dsd_jax.data.plain_pickle import read_pickle
from dsd_jax.data.required_files import Piece, existing_folder, find_pieces
from dsd_jax.errors import UserError
from dsd_jax.io.validation import List

SPLITS = {"umd": ("train", "val", "test"), "google": ("train", "val")}
FOLDERS = ("images/train2014", "train2014", "images", "../images/mscoco/images/train2014", "")
SOURCE = "https://github.com/lichengunc/refer (refcocog.zip)"
PICTURES_SOURCE = "http://images.cocodataset.org/zips/train2014.zip"


class Sentence(NamedTuple):
    """A sentence about an object in a picture."""

    number: int
    text: str
    picture: int


def benchmark(
    folder: str,
    split_by: str = "umd",
    pictures: str = "",
    candidates: int = 10,
    seed: int = 0,
    fit: str = "stretch",
) -> Benchmark:
    """The official splits, and "all" of them together in the file's order.

    Args:
        folder: what holds refs(umd).p or refs(google).p and instances.json.
        split_by: "umd" or "google".
        pictures: what holds train2014, if it is another folder.
        candidates: captions per item, the right one included.
        seed: what the wrong ones are drawn by.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: `split_by` is unknown or `candidates` less than 2.
    """
    if split_by not in SPLITS:
        raise UserError(f"split_by is '{split_by}'; expected {' or '.join(SPLITS)}.")
    if candidates < 2:
        raise UserError(f"candidates is {candidates}; expected 2 or more, the right one included.")
    load = partial(load_split, folder, split_by, pictures, candidates, seed, fit)
    return Benchmark("refcocog", (*SPLITS[split_by], "all"), load)


def load_split(
    folder: str, split_by: str, pictures: str, candidates: int, seed: int, fit: str, split: str
) -> Examples:
    """The items of a split; which pictures are there is looked up at once, none is read."""
    root = existing_folder(folder)
    place = existing_folder(pictures, "pictures") if pictures else root
    pieces = [Piece((name,), SOURCE) for name in (f"refs({split_by}).p", "instances.json")]
    refs, instances = find_pieces(root, pieces, place, Piece(FOLDERS, PICTURES_SOURCE))
    sentences = read_sentences(refs, split)
    files = read_files(instances)
    unknown = {sentence.picture for sentence in sentences} - files.keys()
    if unknown:
        raise UserError(
            f"{refs} is about picture {min(unknown)} ({len(unknown):,} in all) that {instances} "
            "does not know; take both files from the same refcocog.zip."
        )
    wanted = (files[sentence.picture] for sentence in sentences)
    found = locate(place, FOLDERS, wanted, PICTURES_SOURCE)
    rows = to_rows(sentences, files, found, candidates - 1, seed)
    return to_examples(rows, reader(place, fit))


class Line(FileRow):
    """A sentence in the file; `raw` as the authors take it."""

    sent_id: Number
    raw: Text


class Thing(FileRow):
    """An object in the file, with its sentences."""

    image_id: Number
    split: Text
    sentences: List[Line]


class Image(FileRow):
    """An image of instances.json."""

    id: Number
    file_name: ImagePath


class Instances(FileRow):
    """The part of instances.json that is read here."""

    images: list[Any]


def read_sentences(path: Path, split: str) -> list[Sentence]:
    """Return the sentences of a split's objects, in the file's order.

    Raises:
        UserError: the file holds something else.
    """
    refs = read_pickle(path)
    if not isinstance(refs, list):
        raise UserError(f"{path} holds no list of objects; is it refcocog's?")
    found = [
        Sentence(line.sent_id, line.raw, thing.image_id)
        for thing in parse_rows(Thing, enumerate(refs), path, "object")
        if split in (thing.split, "all")
        for line in thing.sentences
    ]
    return not_empty(path, found)


def read_files(path: Path) -> dict[int, str]:
    """Return {number of an image: name of its file}."""
    images = parse_whole(Instances, read_json(path), path).images
    parsed = parse_rows(Image, enumerate(images), path, "image")
    return {image.id: image.file_name for image in parsed}


def to_rows(
    sentences: Sequence[Sentence],
    files: dict[int, str],
    found: dict[str, str],
    count: int,
    seed: int,
) -> list[Row]:
    """One item per sentence; its wrong ones depend on seed, split and its number alone."""
    said = defaultdict(set)
    for sentence in sentences:
        said[sentence.picture].add(plain(sentence.text))
    pool = [sentence.text for sentence in sentences]
    rows = []
    for sentence in sentences:
        good = partial(unsaid, said[sentence.picture])
        wrong = draw_others((seed, sentence.number), pool, count, good, "of other pictures")
        picture = found[files[sentence.picture]]
        rows.append(Row((sentence.text, *wrong), (picture,), "all", sentence.picture))
    return rows


def unsaid(said: set[str], text: str) -> bool:
    """Whether nobody said this of the right picture."""
    return plain(text) not in said


def plain(text: str) -> str:
    """A sentence without what does not change its meaning: capitals, full stop, spaces."""
    return " ".join(text.casefold().rstrip(". ").split())
