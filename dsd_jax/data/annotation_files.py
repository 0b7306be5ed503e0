"""Annotation files: csv, JSON, JSON lines and pickles become rows of checked values.

Whatever a file holds is parsed by `parse_rows` into a `FileRow` whose fields have the types below.
What is wrong with it is said in one sentence that names file, row and field.
"""

import csv
import io
import pickle
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import parse_json, read_regular_file
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, explain

_MOST_BYTES = 2**31  # of an annotation file; VQA's largest has 400 MB
_MOST_DIGITS = 15  # of an image's number
_FARTHEST = 1e6  # pixels; no image is so wide


class FileRow(Checked):
    """A row or entry of a file that other people write; fields that are not read are ignored."""

    model_config = ConfigDict(extra="ignore")


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError(f"is {shorten(text)}, expected text that is not empty")
    return text


def _check_path(name: str) -> str:
    if "\0" in name or "\n" in name or "\r" in name:
        raise ValueError(f"is {shorten(name)}, expected the name of an image, in one line")
    return name


def _check_digits(text: str) -> str:
    # str.isdigit alone would take superscripts and other scripts' digits.
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"is {shorten(text)}, expected the number of an image, in digits 0 to 9")
    return text


def _to_name(value: Any) -> Any:
    """Make a text of a whole number, for labels are often numbers, and "all" of an empty value."""
    if value is None or value == "" and isinstance(value, str):
        return "all"
    return str(value) if type(value) is int else value


# Limits on length make pydantic look at the characters, of which lone surrogates are none.
AnyText = Annotated[str, StringConstraints(max_length=1_000_000)]
Text = Annotated[AnyText, AfterValidator(_check_text)]
Name = Annotated[Text, BeforeValidator(_to_name)]
ImagePath = Annotated[Text, AfterValidator(_check_path)]
Digits = Annotated[Text, AfterValidator(_check_digits)]
Number = Annotated[int, Field(ge=0, lt=10**_MOST_DIGITS)]
Pixels = Annotated[float, Field(ge=-_FARTHEST, le=_FARTHEST)]

Model = TypeVar("Model", bound=BaseModel)


def check_different(right: str, wrong: str, what: str = "captions") -> None:
    """Refuse a wrong candidate that equals the right one.

    Raises:
        ValueError: they are the same, so that nothing tells them apart.
    """
    if right == wrong:
        raise ValueError(f"has two {what} that are the same, {shorten(right)}")


def parse_rows(
    kind: type[Model], rows: Iterable[tuple[Any, Any]], path: Path, noun: str = "entry"
) -> Iterator[Model]:
    """Check the rows of a file and make an object of the class `kind` of each.

    Args:
        kind: what a row holds.
        rows: each one's place in the file and its values by field.
        path: the file.
        noun: what a place is called in messages, such as "line".

    Raises:
        UserError: a value is wrong; names file, place and field.
    """
    for place, row in rows:
        try:
            yield kind.model_validate(row)
        except ValidationError as error:
            raise UserError(f"{path}, {noun} {place}: {explain(error)}.") from error


def parse_whole(kind: type[Model], content: Any, path: Path) -> Model:
    """Make an object of the class `kind` of the whole content of a file.

    Raises:
        UserError: a value is wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; is it the right file?") from error


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a csv file with a header, each with the number of the line it begins in.

    Every row must be in one line: a lone quote would otherwise swallow the rows behind it.

    Raises:
        UserError: a column is missing or there twice, there are no rows, one has more or fewer
            fields than the header, or quotes are not as csv wants them.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    _check_backslashes(path, text)
    rows = _split_rows(path, text)
    _, header = next(rows, (1, []))
    _check_header(path, header, columns)
    records = []
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} fields, expected {len(header)} as in the header."
            )
        records.append((line, dict(zip(header, row, strict=True))))
    return not_empty(path, records)


def _split_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Yield each row that is not empty, and the line in which it begins."""
    reader = csv.reader(io.StringIO(text), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path}, line {line}: a quote that begins there is not closed as csv wants it "
                f'({error}); write a quote within a field twice ("") and the field in quotes.'
            ) from error
        if row is None:
            return
        if any("\n" in field for field in row):
            raise UserError(
                f"{path}, line {line}: a field in quotes that begins there goes on in line "
                f"{line + 1}; close its quote, or write it in one line."
            )
        if row:
            yield line, row


def _check_backslashes(path: Path, text: str) -> None:
    """Refuse quotes as Spark and MySQL write them, which csv would read as other text."""
    place = text.find('\\"')
    if place >= 0:
        line = text.count("\n", 0, place) + 1
        raise UserError(
            f"{path}, line {line}: a quote after a backslash; write a quote within a field "
            'twice ("") and the field in quotes.'
        )


def _check_header(path: Path, header: Sequence[str], columns: Sequence[str]) -> None:
    missing = [name for name in columns if name not in header]
    if missing:
        raise UserError(
            f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header)}."
        )
    twice = [name for i, name in enumerate(header) if name and name in header[:i]]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]}; rename or delete one.")


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        UserError: it is no JSON.
    """
    return parse_json(_read(path), str(path), finite=False)


def read_json_lines(path: Path) -> list[tuple[int, Any]]:
    """Return the number and content of each line of a JSON-lines file that is not empty.

    Raises:
        UserError: a line is no JSON or has a field twice, or there are none.
    """
    lines = enumerate(read_text(path).split("\n"), 1)  # splitlines would cut at U+2028 too
    rows = [
        (i, parse_json(line, f"{path}, line {i}", finite=False, unique=True))
        for i, line in lines
        if line.strip()
    ]
    return not_empty(path, rows)


def read_text(path: Path) -> str:
    """Return a file's text, without the mark that some spreadsheets put before it.

    Raises:
        UserError: it can't be read, or is not UTF-8.
    """
    try:
        return _read(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8 ({error.reason}); save it as such."
        ) from error


def read_pickle(path: Path) -> Any:
    """Return the content of a pickle file of plain data; Python 2's texts are read as UTF-8.

    Bytes in a text that are no UTF-8 become lone surrogates, for the reader to refuse.

    Raises:
        UserError: it holds anything else, or is damaged. Nothing in it is ever executed.
    """
    content = io.BytesIO(_read(path))
    try:
        return _PlainUnpickler(content, encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:  # damaged pickles make Python's reader raise nearly anything
        raise UserError(
            f"{path} is no pickle of plain lists and texts ({error}), so it is not read; get the "
            "original file."
        ) from error


class _PlainUnpickler(pickle.Unpickler):
    """A reader of lists, tuples, dictionaries, texts and numbers, which need no module's names.

    Any other pickle may run any program.
    """

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuse whatever the pickle would import, before it is imported."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuse what lies outside the file."""
        raise pickle.UnpicklingError(f"it refers to {pid}")


def _read(path: Path) -> bytes:
    return read_regular_file(path, most=_MOST_BYTES)


def not_empty(path: Path, rows: list) -> list:
    """Return the rows, or raise `UserError` where the file has none."""
    if not rows:
        raise UserError(f"{path} holds no items.")
    return rows
