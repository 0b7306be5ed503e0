"""VQAv2's questions and what was answered, from its two official files; see `vqa.py`."""

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from dsd_jax.data.annotation_fields import AnyText, FileRow, Number, Text
from dsd_jax.data.annotation_files import parse_rows, parse_whole, read_json
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten

SOURCE = "https://visualqa.org/download.html"


class Question(NamedTuple):
    """A question about a picture.

    given: all that annotators answered; answer: what most of them did.
    sort: how the question starts, such as "what color is the".
    kind: what the answer is: "yes/no", "number" or "other".
    """

    number: int
    text: str
    picture: int
    answer: str
    given: frozenset[str]
    sort: str
    kind: str


Model = TypeVar("Model", bound="About")


class Asked(FileRow):
    """An entry of the questions' file."""

    question_id: Number
    question: Text


class Given(FileRow):
    """What one annotator answered."""

    answer: str


class Answered(FileRow):
    """An entry of the annotations' file."""

    question_id: Number
    image_id: Number
    multiple_choice_answer: AnyText
    question_type: AnyText
    answer_type: Text
    answers: list[Given]


class About(FileRow):
    """The fields of either file that say what it holds."""

    info: dict[str, Any]
    data_subtype: str


class Questions(About):
    """The questions' file."""

    questions: list[Any]


class Annotations(About):
    """The annotations' file."""

    annotations: list[Any]


def read_questions(questions: Path, annotations: Path, year: str) -> list[Question]:
    """Return all questions with their answers, in the order of the annotations.

    Raises:
        UserError: a file is of another version or split, or they do not belong together.
    """
    asked = _read(Questions, questions, year).questions
    answered = _read(Annotations, annotations, year).annotations
    parsed = parse_rows(Asked, enumerate(asked), questions, "question")
    texts = {one.question_id: one.question for one in parsed}
    found = []
    for one in parse_rows(Answered, enumerate(answered), annotations, "annotation"):
        if one.question_id not in texts:
            raise UserError(
                f"{annotations} answers question {one.question_id}, which {questions} does not "
                "ask; take both files from the same release."
            )
        answer = one.multiple_choice_answer
        found.append(
            Question(
                number=one.question_id,
                text=texts[one.question_id],
                picture=one.image_id,
                answer=answer,
                given=frozenset([answer, *(given.answer for given in one.answers)]),
                sort=one.question_type,
                kind=one.answer_type,
            )
        )
    return found


def _read(kind: type[Model], path: Path, year: str) -> Model:
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
