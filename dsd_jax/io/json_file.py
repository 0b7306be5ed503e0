"""JSON files from outside: read once, within limits, with one sentence for whatever is wrong."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.io.regular_file import read_regular_file
from dsd_jax.io.validation import shorten

_MOST = 2**26  # bytes; the largest that are read so are vocabularies and indices of weights
_DEEPEST = 100  # braces and brackets inside each other


def read_json(file: str | os.PathLike) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: the file is missing or unreadable, or holds no JSON object.
    """
    return json_object(read_regular_file(file, most=_MOST), str(file))


def json_object(content: bytes | str, where: str) -> dict[str, Any]:
    """Parse JSON that must be an object; raises as `parse_json`."""
    value = parse_json(content, where)
    if not isinstance(value, dict):
        raise UserError(f"{where} holds a {type(value).__name__}, expected a JSON object.")
    return value


def parse_json(
    content: bytes | str, where: str, *, finite: bool = True, unique: bool = False
) -> Any:
    """Parse JSON that `where` names in messages.

    Args:
        content: the text, or its bytes in UTF-8.
        where: what it was read from.
        finite: refuse NaN and infinity; otherwise they become floats, for a model to refuse where
            they matter.
        unique: refuse an object with a field twice, of which Python would take the last.

    Raises:
        UserError: it is no JSON, nested too deep, or has a number that is none: NaN, infinity, or
            one of thousands of digits.
    """
    try:
        text = content if isinstance(content, str) else content.decode("utf-8-sig")
        if text.startswith("version https://git-lfs"):
            raise UserError(f"{where} is a git-lfs pointer, not the file; run `git lfs pull`.")
        value = json.loads(
            text,
            parse_constant=_refuse_constant if finite else None,
            object_pairs_hook=_refuse_doubles if unique else None,
        )
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep; expected JSON of a few levels.") from error
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}.") from error
    if _is_deeper(value, _DEEPEST):
        raise UserError(f"{where} is nested too deep; expected JSON of a few levels.")
    return value


def _refuse_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shorten(twice)} is there twice")
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _is_deeper(value: object, most: int) -> bool:
    """Whether lists and objects are nested more than `most` times, without recursion."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(most):
        if not level:
            return False
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if type(inner) in (dict, list)
        ]
    return bool(level)


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as diffusers does: indented, keys sorted."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
