"""JSON objects in a model's folder."""

import json
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError


def read_json(file: Path) -> dict[str, Any]:
    """The object in `file`; `UserError` where it is missing, is not JSON or not an object."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{file} is missing; the model's folder is not complete.") from error
    except (ValueError, OSError) as error:
        why = "not JSON"
        if isinstance(error, ValueError) and "git-lfs" in file.read_text(errors="replace")[:100]:
            why = "a git-lfs pointer (run `git lfs pull`)"
        raise UserError(f"{file} can't be read, it is {why}: {error}.") from error
    if not isinstance(value, dict):
        raise UserError(f"{file} holds a {type(value).__name__}, expected a JSON object.")
    return value


def write_json(file: Path, value: dict[str, Any]) -> None:
    """Writes `value` as diffusers does: indented, keys sorted."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")
