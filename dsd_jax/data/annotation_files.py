"""Annotation files: csv, JSON and JSON lines, with what is wrong with them in one sentence."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import parse_json, read_regular_file
from dsd_jax.io.validation import explain

_MOST = 2**31  # bytes of an annotation file; VQA's largest has 400 MB
Model = TypeVar("Model", bound=BaseModel)


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
    """Make an object of the class `kind` of all that a file holds.

    Raises:
        UserError: a value is wrong.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error)}; is it the right file?") from error


def read_csv(path: Path, columns: Sequence[str]) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a csv file with a header, each with the number of the line it begins in.

    Rows of one line each are all that is taken: a lone quote would else swallow the rows behind it.

    Raises:
        UserError: a column lacks or is there twice, there are no rows, one has more or fewer
            fields than the header, or quotes are not as csv wants them.
    """
    text = read_text(path).replace("\r\n", "\n").replace("\r", "\n")
    _check_backslashes(path, text)
    rows = _split_rows(path, text)
    _, header = next(rows, (1, []))
    _check_header(path, header, columns)
    found = []
    for line, row in rows:
        if len(row) != len(header):
            raise UserError(
                f"{path}, line {line}: {len(row)} fields, expected {len(header)} as in the header."
            )
        found.append((line, dict(zip(header, row, strict=True))))
    return not_empty(path, found)


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
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(
            f"{path} has no column {', '.join(lacking)}; its columns are {', '.join(header)}."
        )
    twice = [name for i, name in enumerate(header) if name and name in header[:i]]
    if twice:
        raise UserError(f"{path} has two columns {twice[0]}; rename or delete one.")


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises:
        UserError: it is no JSON.
    """
    return parse_json(_read(path), str(path), finite=False)


def read_json_lines(path: Path) -> list[tuple[int, Any]]:
    """Return what each line of a JSON-lines file holds, with its number; empty ones are skipped.

    Raises:
        UserError: a line is no JSON or has a field twice, or there are none.
    """
    lines = enumerate(read_text(path).split("\n"), 1)  # splitlines would cut at U+2028 too
    found = [
        (i, parse_json(line, f"{path}, line {i}", finite=False, unique=True))
        for i, line in lines
        if line.strip()
    ]
    return not_empty(path, found)


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


def _read(path: Path) -> bytes:
    return read_regular_file(path, most=_MOST)


def not_empty(path: Path, rows: list) -> list:
    """Return the rows, of which there must be some."""
    if not rows:
        raise UserError(f"{path} holds no items.")
    return rows
