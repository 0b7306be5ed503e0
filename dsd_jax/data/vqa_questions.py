"""VQAv2's questions and what was answered, from its two official files; see `vqa.py`."""

from pathlib import Path
from typing import Any, NamedTuple

from dsd_jax.data.tables import fields, read_json
from dsd_jax.errors import UserError

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


def read_questions(questions: Path, annotations: Path, year: str) -> list[Question]:
    """All questions with their answers, in the order of the annotations.

    Raises:
        UserError: a file is of another version or split, or they do not belong together.
    """
    asked, answered = (checked(path, year) for path in (questions, annotations))
    texts = {}
    for i, entry in enumerate(fields(questions, "the whole", asked, ("questions",))[0]):
        number, text = fields(questions, f"question {i}", entry, ("question_id", "question"))
        texts[number] = text
    found = []
    for i, entry in enumerate(fields(annotations, "the whole", answered, ("annotations",))[0]):
        place = f"annotation {i}"
        names = ("question_id", "image_id", "multiple_choice_answer", "question_type")
        number, picture, answer, sort = fields(annotations, place, entry, names)
        kind, answers = fields(annotations, place, entry, ("answer_type", "answers"))
        try:
            given = frozenset([answer, *(one["answer"] for one in answers)])
        except (TypeError, KeyError) as error:
            told = f"{annotations}, {place}: expected a list of answers."
            raise UserError(told) from error
        if number not in texts:
            raise UserError(
                f"{annotations} answers question {number}, which {questions} does not ask; take "
                "both files from the same release."
            )
        text = texts[number]
        found.append(Question(number, text, picture, answer, given, sort, kind))
    return found


def checked(path: Path, year: str) -> Any:
    """A file's content, if it is of version 2 and of the right pictures."""
    content = read_json(path)
    about, subset = fields(path, "the whole", content, ("info", "data_subtype"))
    version = about.get("version") if isinstance(about, dict) else None
    if str(version) != "2.0":
        raise UserError(f"{path} is of version {version}; expected VQA 2.0, from {SOURCE}.")
    if subset != year:
        raise UserError(f"{path} is about {subset}; expected {year}: has it been renamed?")
    return content
