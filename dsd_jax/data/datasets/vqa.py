"""VQAv2 as matching: a question and an answer as caption, for one of ten pictures or captions.

Files as people have them, in one folder, in either of two forms. "official", from
https://visualqa.org/download.html (CC BY 4.0):

    v2_OpenEnded_mscoco_train2014_questions.json, v2_OpenEnded_mscoco_val2014_questions.json
    v2_mscoco_train2014_annotations.json, v2_mscoco_val2014_annotations.json

"authors", from https://github.com/eric-ai-lab/Discffusion (data/, MIT; the first by the link in its
README), see `vqa_authors.py`:

    vqa_text_train.csv, vqa_text_test.csv   sentence, pos_image_id, neg_sentence_1 to 9
    test.txt                                picture*The question is asking about ...: sentence

Both with COCO's pictures in train2014/ and val2014/ or images/train2014/ and images/val2014/.

Captions are "QUESTION ANSWER", as the authors join them; the answer is `multiple_choice_answer`.

- SPLIT/binary: questions of answer_type yes/no. 10 pictures, wrong ones drawn by seed from those of
  other binary questions of the split, but where the same question has the same answer. Of many a
  drawn picture the caption is true all the same ("is it night? no"), in the authors' data too.
- SPLIT/other: all other questions; the kind is answer_type, "other" or "number". 10 captions, wrong
  answers drawn by seed from the 100 most frequent ones to questions of the same question_type
  (failing that, of the same answer_type), none of which any of the ten annotators gave.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import partial
from typing import Any

from dsd_jax.data.annotation_files import not_empty
from dsd_jax.data.dataset import Row, to_examples
from dsd_jax.data.datasets import vqa_authors
from dsd_jax.data.datasets.vqa_questions import SOURCE, Question, read_questions
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.data.image_folder import locate, reader
from dsd_jax.data.negatives import draw_others
from dsd_jax.data.required_files import Piece, existing_folder, find_pieces
from dsd_jax.errors import UserError

SPLITS = ("train/binary", "train/other", "val/binary", "val/other")
FREQUENT = 100  # answers to a type of question that wrong ones are drawn from
FORMS = ("official", "authors")


def benchmark(
    folder: str,
    form: str = "official",
    pictures: str = "",
    candidates: int = 10,
    seed: int = 0,
    fit: str = "stretch",
) -> Benchmark:
    """Splits "train/binary" to "val/other", or those of `vqa_authors`.

    Args:
        folder: what holds the questions and answers.
        form: "official" or "authors".
        pictures: what holds train2014 and val2014, if it is another folder.
        candidates: pictures (captions) per item, the right one included; the authors' csv has 10.
        seed: what the wrong ones are drawn by.
        fit: how pictures become square; see `images.FITS`.

    Raises:
        UserError: `form` is unknown or `candidates` less than 2.
    """
    if form not in FORMS:
        raise UserError(f"form is '{form}'; expected {' or '.join(FORMS)}.")
    if candidates < 2:
        raise UserError(f"candidates is {candidates}; expected 2 or more, the right one included.")
    official = form == "official"
    load = load_official if official else vqa_authors.load
    splits = SPLITS if official else vqa_authors.SPLITS
    return Benchmark("vqa", splits, partial(load, folder, pictures, candidates, seed, fit))


def load_official(
    folder: str, pictures: str, candidates: int, seed: int, fit: str, split: str
) -> Examples:
    """The items of a split; which pictures are there is looked up at once, none is read."""
    root = existing_folder(folder)
    place = existing_folder(pictures, "pictures") if pictures else root
    part, _, sort = split.partition("/")
    year = f"{part}2014"
    names = [f"OpenEnded_mscoco_{year}_questions.json", f"mscoco_{year}_annotations.json"]
    # The first version's files lack the "v2_"; found, they are refused by what they say they are.
    pieces = [Piece((f"v2_{name}", name), SOURCE) for name in names]
    folders = Piece(
        (f"images/{year}", year, "images", ""), f"http://images.cocodataset.org/zips/{year}.zip"
    )
    paths = find_pieces(root, pieces, place, folders)
    questions = read_questions(*paths, year)
    chosen = [q for q in questions if (q.kind == "yes/no") == (sort == "binary")]
    not_empty(paths[1], chosen)
    file = f"COCO_{year}_{{:012d}}.jpg".format
    wanted = (file(question.picture) for question in chosen)
    found = locate(place, folders.names, wanted, folders.source)
    key = {question.picture: found[file(question.picture)] for question in chosen}
    make = binary_rows if sort == "binary" else other_rows
    return to_examples(make(chosen, key, candidates - 1, seed), reader(place, fit))


def binary_rows(
    questions: Sequence[Question], key: dict[int, str], count: int, seed: int
) -> list[Row]:
    """One caption, its picture and others."""
    right = defaultdict(set)
    for question in questions:
        right[question.text, question.answer].add(question.picture)
    pool = [question.picture for question in questions]
    rows = []
    for question in questions:
        good = partial(is_not_in, right[question.text, question.answer])
        drawn = draw_others((seed, question.number), pool, count, good, "other pictures")
        pictures = tuple(key[picture] for picture in (question.picture, *drawn))
        caption = f"{question.text} {question.answer}"
        rows.append(Row((caption,), pictures, question.kind, question.picture))
    return rows


def other_rows(
    questions: Sequence[Question], key: dict[int, str], count: int, seed: int
) -> list[Row]:
    """One picture, the question with its answer and with others."""
    by_sort = frequent([(question.sort, question.answer) for question in questions])
    by_kind = frequent([(question.kind, question.answer) for question in questions])
    rows = []
    for question in questions:
        good = partial(is_not_in, question.given)
        pool = by_sort[question.sort]
        if len(set(pool) - question.given) < count:
            pool = by_kind[question.kind]
        drawn = draw_others((seed, question.number), pool, count, good, "other answers")
        captions = tuple(f"{question.text} {answer}" for answer in (question.answer, *drawn))
        rows.append(Row(captions, (key[question.picture],), question.kind, question.picture))
    return rows


def frequent(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """{type: its most frequent answers, by number and then by name}."""
    counts: dict[str, Counter] = defaultdict(Counter)
    for sort, answer in pairs:
        counts[sort][answer] += 1
    return {
        sort: sorted(counter, key=lambda answer, c=counter: (-c[answer], answer))[:FREQUENT]
        for sort, counter in counts.items()
    }


def is_not_in(some: set | frozenset, one: Any) -> bool:
    """Whether it may be drawn."""
    return one not in some
