"""RefCOCOg: a COCO image, and the sentence of one of its objects among nine of other images.

Files as people have them, in one folder (the `refer` API's data/refcocog):

    refs(umd).p        Python 2 pickle, a list of objects with their sentences, split train, val and
                       test, no image in two of them; or refs(google).p, split train and val by
                       objects, so that images are in both. From refcocog.zip,
                       https://github.com/lichengunc/refer (Apache 2.0)
    instances.json     the COCO annotations of the same zip: which image has which number
    images/train2014/  COCO's images, COCO_train2014_000000380440.jpg (CC BY 4.0 annotations,
                       Flickr's terms), http://images.cocodataset.org/zips/train2014.zip

An item is a sentence (its `raw`, as the authors take it). The refs' own `file_name` has the number
of the annotation at its end (COCO_train2014_000000380440_491042.jpg); no such image exists, so
names of images are those of instances.json. Wrong sentences are drawn by seed from objects in other
images of the same split, and are never words of the right image. The authors draw from all
objects of all splits, of the same image and even of the same object too, by no seed.
"""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dsd_jax.data.annotation_files import (
    FileRow,
    ImagePath,
    Number,
    Text,
    not_empty,
    parse_rows,
    parse_whole,
    read_json,
    read_pickle,
)
from dsd_jax.data.data_folder import DataFolder, RequiredFile
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.data.negatives import Negatives
from dsd_jax.errors import UserError
from dsd_jax.io.validation import List

SPLITS = {"umd": ("train", "val", "test"), "google": ("train", "val")}
SOURCE = "https://github.com/lichengunc/refer (refcocog.zip)"
IMAGE_FOLDERS = RequiredFile(
    ("images/train2014", "train2014", "images", "../images/mscoco/images/train2014", ""),
    "http://images.cocodataset.org/zips/train2014.zip",
)


class Sentence(NamedTuple):
    """A sentence about an object in an image; both numbers are those of the files."""

    number: int
    text: str
    image: int


def benchmark(
    folder: str,
    *,
    split_by: str = "umd",
    pictures: str = "",
    candidates: int = 10,
    seed: int = 0,
    fit: str = "stretch",
) -> Benchmark:
    """Open the official splits, and "all" of them together in the file's order.

    Args:
        folder: what holds refs(umd).p or refs(google).p and instances.json.
        split_by: "umd" or "google".
        pictures: what holds train2014, if it is another folder.
        candidates: captions per item, the right one included.
        seed: what the wrong ones are drawn by.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: `split_by` is unknown or `candidates` less than 2.
    """
    if split_by not in SPLITS:
        raise UserError(f"split_by is '{split_by}'; expected {' or '.join(SPLITS)}.")
    negatives = Negatives.beside_right(candidates, seed)

    def load(split: str) -> Examples:
        place = DataFolder.open(folder, IMAGE_FOLDERS, pictures=pictures, fit=fit)
        return load_split(place, split_by, split, negatives)

    return Benchmark("refcocog", (*SPLITS[split_by], "all"), load)


def load_split(folder: DataFolder, split_by: str, split: str, negatives: Negatives) -> Examples:
    """Return the items of a split; missing images are noticed at once, none is read yet."""
    required = [RequiredFile((name,), SOURCE) for name in (f"refs({split_by}).p", "instances.json")]
    refs, instances = folder.find(required)
    sentences = read_sentences(refs, split)
    files = read_files(instances)
    unknown = {sentence.image for sentence in sentences} - files.keys()
    if unknown:
        raise UserError(
            f"{refs} is about image {min(unknown)} ({len(unknown):,} in all) that {instances} "
            "does not know; take both files from the same refcocog.zip."
        )
    return folder.examples(to_items(sentences, files, negatives))


class SentenceRow(FileRow):
    """A sentence in the file; `raw` as the authors take it."""

    sent_id: Number
    raw: Text


class ObjectRow(FileRow):
    """An object in the file, with its sentences."""

    image_id: Number
    split: Text
    sentences: List[SentenceRow]


class ImageRow(FileRow):
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
    sentences = [
        Sentence(row.sent_id, row.raw, thing.image_id)
        for thing in parse_rows(ObjectRow, enumerate(refs), path, "object")
        if split in (thing.split, "all")
        for row in thing.sentences
    ]
    return not_empty(path, sentences)


def read_files(path: Path) -> dict[int, str]:
    """Return {number of an image: name of its file}."""
    images = parse_whole(Instances, read_json(path), path).images
    parsed = parse_rows(ImageRow, enumerate(images), path, "image")
    return {image.id: image.file_name for image in parsed}


def to_items(
    sentences: Sequence[Sentence], files: dict[int, str], negatives: Negatives
) -> list[Example]:
    """Return one item per sentence; its wrong ones depend on seed, split and its number alone."""
    plain_of_image = defaultdict(set)
    for sentence in sentences:
        plain_of_image[sentence.image].add(plain(sentence.text))
    pool = [sentence.text for sentence in sentences]
    items = []
    for number, text, image in sentences:
        right = plain_of_image[image]
        wrong = negatives.draw(
            number, pool, lambda other, r=right: plain(other) not in r, "sentences of other images"
        )
        items.append(Example((text, *wrong), (files[image],), "all", image))
    return items


def plain(text: str) -> str:
    """Return a sentence without what does not change its meaning: capitals, full stop, spaces."""
    return " ".join(text.casefold().rstrip(". ").split())
