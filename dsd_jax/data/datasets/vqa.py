"""VQAv2 as matching: a question and an answer as caption, for one of ten images or captions.

Files as people have them, all in one folder, in either of two forms; with both, COCO's images in
train2014/ and val2014/ or images/train2014/ and images/val2014/.

"official", from https://visualqa.org/download.html (CC BY 4.0):

    v2_OpenEnded_mscoco_train2014_questions.json, v2_OpenEnded_mscoco_val2014_questions.json
    v2_mscoco_train2014_annotations.json, v2_mscoco_val2014_annotations.json

Captions are "QUESTION ANSWER", as the authors join them; the answer is `multiple_choice_answer`.

- SPLIT/binary: questions of answer_type yes/no. 10 images, wrong ones drawn by seed from those of
  other binary questions of the split, but where the same question has the same answer. The caption
  is true of many a drawn image all the same ("is it night? no"), in the authors' data too.
- SPLIT/other: all other questions; the kind is answer_type, "other" or "number". 10 captions, wrong
  answers drawn by seed from the 100 most frequent ones to questions of the same question_type
  (failing that, of the same answer_type), none of which any of the ten annotators gave.

"authors", from https://github.com/eric-ai-lab/Discffusion (data/, MIT; the first by the link in its
README):

    vqa_text_train.csv, vqa_text_test.csv   sentence, pos_image_id, neg_sentence_1 to 9
    test.txt                                image*The question is asking about ...: sentence

- train/other: vqa_text_train.csv, with images of train2014; shots/other are its first 5 % of
  rows, which is what they train on; test/other: vqa_text_test.csv, 1,000 rows of 198 images of
  val2014. Ten sentences per image, the right one first. Wrong answers are any of VQA's, whatever
  the question ("What color is the hat? 5:25"); in one row of the test one of them is the right one,
  and in one it is empty. 386 of the test's rows are yes/no questions.
- test/binary: the 3,381 yes/no lines of test.txt (in their code vqav2/test3.txt), such as
  "COCO_val2014_000000119630.jpg*The question is asking about yes or no: are the suitcases for sale?
  the suitcases are not for sale". Nine wrong images are drawn from the other yes/no lines, here
  by seed and never one with the same sentence, which in theirs may be.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import model_validator

from dsd_jax.data.annotation_files import (
    AnyText,
    Digits,
    FileRow,
    ImagePath,
    Number,
    Text,
    not_empty,
    parse_rows,
    parse_whole,
    read_csv,
    read_json,
    read_text,
)
from dsd_jax.data.data_folder import DataFolder, RequiredFile
from dsd_jax.data.examples import Benchmark, Example, Examples
from dsd_jax.data.negatives import Negatives
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten

FORMS = ("official", "authors")
SPLITS = {
    "official": ("train/binary", "train/other", "val/binary", "val/other"),
    "authors": ("shots/other", "train/other", "test/other", "test/binary"),
}
SOURCE = "https://visualqa.org/download.html"
FREQUENT = 100  # answers to a type of question that wrong ones are drawn from
AUTHORS_SOURCE = "https://github.com/eric-ai-lab/Discffusion (data/, and the link in its README)"
AUTHORS_FILES = {
    "shots/other": ("vqa_text_train.csv", "data/vqa_text_train.csv"),
    "train/other": ("vqa_text_train.csv", "data/vqa_text_train.csv"),
    "test/other": ("vqa_text_test.csv", "data/vqa_text_test.csv"),
    "test/binary": ("test.txt", "test3.txt", "data/test.txt"),
}
AUTHORS_SHOTS = 0.05  # the part of the rows that they train on
WRONG_COLUMNS = tuple(f"neg_sentence_{i}" for i in range(1, 10))
LINE_MARK = "The question is asking about "
BINARY_MARK = f"{LINE_MARK}yes or no: "


def benchmark(
    folder: str,
    form: str = "official",
    *,
    pictures: str = "",
    candidates: int = 10,
    seed: int = 0,
    fit: str = "stretch",
) -> Benchmark:
    """Open the splits of a form: "train/binary" to "val/other", or the authors' (see above).

    Args:
        folder: what holds the questions and answers.
        form: "official" or "authors".
        pictures: what holds train2014 and val2014, if it is another folder.
        candidates: images (captions) per item, the right one included; the authors' csv has 10.
        seed: what the wrong ones are drawn by.
        fit: how images become square; see `images.FITS`.

    Raises:
        UserError: `form` is unknown or `candidates` less than 2.
    """
    if form not in FORMS:
        raise UserError(f"form is '{form}'; expected {' or '.join(FORMS)}.")
    negatives = Negatives.beside_right(candidates, seed)

    def load(split: str) -> Examples:
        year = "train2014" if split.startswith(("train", "shots")) else "val2014"
        # The authors' images lie beside their files, the official ones among COCO's other data.
        places = (f"images/{year}", year) if form == "official" else (year, f"images/{year}")
        images = RequiredFile(
            (*places, "images", ""), f"http://images.cocodataset.org/zips/{year}.zip"
        )
        place = DataFolder.open(folder, images, pictures=pictures, fit=fit)
        load_form = load_official if form == "official" else load_authors
        return place.examples(load_form(place, split, year, negatives))

    return Benchmark("vqa", SPLITS[form], load)


def image_name(year: str, number: int) -> str:
    """Return COCO's name of an image file."""
    return f"COCO_{year}_{number:012d}.jpg"


class QuestionRow(FileRow):
    """An entry of the questions' file."""

    question_id: Number
    question: Text


class AnswerRow(FileRow):
    """The answer of one annotator."""

    answer: str


class AnnotationRow(FileRow):
    """An entry of the annotations' file."""

    question_id: Number
    image_id: Number
    multiple_choice_answer: AnyText
    question_type: AnyText
    answer_type: Text
    answers: list[AnswerRow]


class Question(NamedTuple):
    """A question, the name of the image that it is about, and what was answered."""

    text: str
    image: str
    row: AnnotationRow

    @property
    def answer(self) -> str:
        """Return the answer of most annotators."""
        return self.row.multiple_choice_answer

    @property
    def caption(self) -> tuple[str, str]:
        """Return the parts of the right caption."""
        return self.text, self.answer

    @property
    def given(self) -> frozenset[str]:
        """Return all answers of the annotators."""
        return frozenset([self.answer, *(given.answer for given in self.row.answers)])


class Header(FileRow):
    """The fields of either file that say what it holds."""

    info: dict[str, Any]
    data_subtype: str


class Questions(Header):
    """The questions' file."""

    questions: list[Any]


class Annotations(Header):
    """The annotations' file."""

    annotations: list[Any]


Content = TypeVar("Content", bound=Header)


def load_official(folder: DataFolder, split: str, year: str, negatives: Negatives) -> list[Example]:
    """Return the items of a split of the official form, with images' names for keys."""
    names = [f"OpenEnded_mscoco_{year}_questions.json", f"mscoco_{year}_annotations.json"]
    # The first version's files lack the "v2_"; they are refused by what they say they are.
    asked, answered = folder.find([RequiredFile((f"v2_{name}", name), SOURCE) for name in names])
    questions = read_questions(asked, answered, year)
    is_binary = split.endswith("/binary")
    selected = [q for q in questions if (q.row.answer_type == "yes/no") == is_binary]
    not_empty(answered, selected)
    return (binary_items if is_binary else other_items)(selected, negatives)


def read_questions(questions: Path, annotations: Path, year: str) -> list[Question]:
    """Return all questions with their answers, in the order of the annotations.

    Raises:
        UserError: a file is of another version or split, or they do not belong together.
    """
    asked = _read(Questions, questions, year).questions
    answered = _read(Annotations, annotations, year).annotations
    parsed = parse_rows(QuestionRow, enumerate(asked), questions, "question")
    texts = {row.question_id: row.question for row in parsed}
    joined = []
    for row in parse_rows(AnnotationRow, enumerate(answered), annotations, "annotation"):
        if row.question_id not in texts:
            raise UserError(
                f"{annotations} answers question {row.question_id}, which {questions} does not "
                "ask; take both files from the same release."
            )
        joined.append(Question(texts[row.question_id], image_name(year, row.image_id), row))
    return joined


def _read(kind: type[Content], path: Path, year: str) -> Content:
    """Return a file's content, if it is of version 2 and of the right images."""
    content = parse_whole(kind, read_json(path), path)
    version = content.info.get("version")
    if str(version) != "2.0":
        raise UserError(
            f"{path} is of version {shorten(version)}; expected VQA 2.0, from {SOURCE}."
        )
    if content.data_subtype != year:
        subset = shorten(content.data_subtype)
        raise UserError(f"{path} is about {subset}; expected {year}: has it been renamed?")
    return content


class CaptionedImage(NamedTuple):
    """An image and a caption that it fits, by the parts that spaces join."""

    number: int
    caption: tuple[str, ...]
    image: str
    cluster: Hashable


def binary_items(questions: Sequence[Question], negatives: Negatives) -> list[Example]:
    """Return items of one caption, its image and others."""
    return with_wrong_images(
        [CaptionedImage(q.row.question_id, q.caption, q.image, q.row.image_id) for q in questions],
        negatives,
    )


def with_wrong_images(pairs: Sequence[CaptionedImage], negatives: Negatives) -> list[Example]:
    """Return yes/no items; an image with the same caption is never a wrong one."""
    right = defaultdict(set)
    for pair in pairs:
        right[pair.caption].add(pair.image)
    pool = [pair.image for pair in pairs]
    items = []
    for number, caption, image, cluster in pairs:
        fitting = right[caption]
        wrong = negatives.draw(number, pool, lambda x, f=fitting: x not in f, "other images")
        items.append(Example((" ".join(caption),), (image, *wrong), "yes/no", cluster))
    return items


def other_items(questions: Sequence[Question], negatives: Negatives) -> list[Example]:
    """Return items of one image, the question with its answer and with others."""
    by_question_type = frequent((q.row.question_type, q.answer) for q in questions)
    by_answer_type = frequent((q.row.answer_type, q.answer) for q in questions)
    items = []
    for q in questions:
        given = q.given
        pool = by_question_type[q.row.question_type]
        if len(set(pool) - given) < negatives.count:
            pool = by_answer_type[q.row.answer_type]
        number, kind, cluster = q.row.question_id, q.row.answer_type, q.row.image_id
        wrong = negatives.draw(number, pool, lambda x, g=given: x not in g, "other answers")
        captions = tuple(f"{q.text} {answer}" for answer in (q.answer, *wrong))
        items.append(Example(captions, (q.image,), kind, cluster))
    return items


def frequent(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return {type: its most frequent answers, by number and then by name}."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for type_of_question, answer in pairs:
        counts[type_of_question][answer] += 1
    return {
        name: sorted(counter, key=lambda answer, c=counter: (-c[answer], answer))[:FREQUENT]
        for name, counter in counts.items()
    }


def load_authors(folder: DataFolder, split: str, year: str, negatives: Negatives) -> list[Example]:
    """Return the items of a split of the authors' form, with images' names for keys."""
    (path,) = folder.find([RequiredFile(AUTHORS_FILES[split], AUTHORS_SOURCE)])
    if split == "test/binary":
        return read_lines(path, negatives)
    items = read_sentences(path, year, negatives.count)
    if split == "shots/other":
        items = items[: int(AUTHORS_SHOTS * len(items))]
    return not_empty(path, items)


class SentencesRow(FileRow):
    """A row of the authors' csv; one of the real test's wrong answers is empty."""

    sentence: Text
    pos_image_id: Digits
    wrong: tuple[AnyText, ...]

    @model_validator(mode="before")
    @classmethod
    def _gather(cls, row: dict[str, str]) -> dict[str, Any]:
        return row | {"wrong": tuple(row[name] for name in WRONG_COLUMNS)}


class LineRow(FileRow):
    """A line of the authors' text file: an image and its caption."""

    image: ImagePath
    caption: Text


def read_sentences(path: Path, year: str, count: int) -> list[Example]:
    """Return one item per row of the authors' csv, with `count` of its wrong sentences."""
    if not 1 <= count <= len(WRONG_COLUMNS):
        most = len(WRONG_COLUMNS) + 1
        raise UserError(f"candidates is {count + 1}; {path} has 2 to {most} of them.")
    rows = read_csv(path, ("sentence", "pos_image_id", *WRONG_COLUMNS))
    return [
        Example(
            (row.sentence, *row.wrong[:count]),
            (image_name(year, int(row.pos_image_id)),),
            "all",
            row.pos_image_id,
        )
        for row in parse_rows(SentencesRow, rows, path, "line")
    ]


def read_lines(path: Path, negatives: Negatives) -> list[Example]:
    """Return one item per yes/no line of the authors' text file."""
    lines = []
    for i, line in enumerate(read_text(path).split("\n"), 1):
        image, star, text = line.strip().partition("*")
        if line.strip() and not (star and text.startswith(LINE_MARK)):
            raise UserError(f"{path}, line {i}: expected IMAGE*{LINE_MARK}...: SENTENCE.")
        if text.startswith(BINARY_MARK):
            lines.append((i, {"image": image, "caption": text.removeprefix(BINARY_MARK)}))
    rows = not_empty(path, list(parse_rows(LineRow, lines, path, "line")))
    pairs = [
        CaptionedImage(number, (row.caption,), row.image, row.image)
        for number, row in enumerate(rows)
    ]
    return with_wrong_images(pairs, negatives)
