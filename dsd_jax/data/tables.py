"""Annotation files: csv, JSON and JSON lines, with what is wrong with them in one sentence."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError


def read_csv(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """All rows of a csv file with a header, which has at least `columns`.

    Raises:
        UserError: it has not, has no rows, or a row has more or fewer fields than the header.
    """
    rows = csv.DictReader(io.StringIO(read_text(path), newline=""))
    header = rows.fieldnames or []
    lacking = [name for name in columns if name not in header]
    if lacking:
        raise UserError(
            f"{path} has no column {', '.join(lacking)}; its columns are {', '.join(header)}."
        )
    found = []
    for row in rows:
        if None in row or None in row.values():
            raise UserError(f"{path}, line {rows.line_num}: expected {len(header)} fields.")
        found.append(row)
    return not_empty(path, found)


def read_json(path: Path) -> Any:
    """What a JSON file holds.

    Raises:
        UserError: it is no JSON.
    """
    return parse_json(path, "", read_text(path))


def read_json_lines(path: Path) -> list[Any]:
    """What each line of a JSON-lines file holds; empty lines are skipped.

    Raises:
        UserError: a line is no JSON, or there are none.
    """
    lines = enumerate(read_text(path).split("\n"), 1)  # splitlines would cut at U+2028 too
    found = [parse_json(path, f", line {i}", line) for i, line in lines if line.strip()]
    return not_empty(path, found)


def parse_json(path: Path, place: str, text: str) -> Any:
    """JSON from a place in a file."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"{path}{place} is not valid JSON ({error}); get it again.") from error


def read_text(path: Path) -> str:
    """A file's text, without the mark that some spreadsheets put before it."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not text in UTF-8 ({error.reason}); save it as such."
        ) from error
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error


def not_empty(path: Path, rows: list) -> list:
    """The rows, of which there must be some."""
    if not rows:
        raise UserError(f"{path} holds no items.")
    return rows


def fields(path: Path, place: str, entry: Any, names: Sequence[str]) -> list[Any]:
    """The values of some fields of an object from a JSON file.

    Raises:
        UserError: it is no object, or lacks one of them.
    """
    lacking = [name for name in names if not isinstance(entry, dict) or name not in entry]
    if lacking:
        raise UserError(f"{path}, {place}: no field {', '.join(lacking)}; is it the right file?")
    return [entry[name] for name in names]
