"""Files on this machine: regular ones of limited size, JSON in them, home and cache folders."""

import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import printable, shorten

COMPILED = "programs"  # in the cache folder: what JAX has compiled
_USUAL_CACHE = "~/.cache/dsd_jax"  # as configs and messages write it
_MAX_JSON = 2**26  # bytes; the largest that are read so are vocabularies and indices of weights
_MAX_DEPTH = 100  # braces and brackets inside each other


def open_regular_file(file: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read bytes from it.

    A FIFO or a device would block or never end, so what is opened is checked before it is read.

    Raises:
        UserError: it is missing, a folder, no regular file, or not allowed to be read.
    """
    path = Path(file)
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        where = f", a link to {os.readlink(path)}, which is not there" if path.is_symlink() else ""
        raise UserError(f"{path} is missing{where}.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"{path} is {kind}; expected a file.")
    return open(descriptor, "rb")


def read_regular_file(file: str | os.PathLike, *, most: int = 2**28) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        UserError: as `open_regular_file`, or it is too large.
    """
    with open_regular_file(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most:
            raise UserError(f"{file} has {size:,} bytes; expected at most {most:,} of such a file.")
        try:
            return opened.read()
        except OSError as error:
            raise unreadable(Path(file), error) from error


def list_folder(folder: str | os.PathLike) -> list[str]:
    """Return the sorted names of a folder's entries; raises `UserError` where it can't be read."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError) as error:
        raise unreadable(Path(folder), error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the `UserError` for a file or folder that the system does not let us read."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{printable(str(path)[:200])} can't be read ({reason}).")


def read_json(file: str | os.PathLike) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        UserError: the file is missing or unreadable, or holds no JSON object.
    """
    return json_object(read_regular_file(file, most=_MAX_JSON), str(file))


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write `value` as diffusers does: indented, keys sorted."""
    file.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
            object_pairs_hook=_refuse_duplicates if unique else None,
        )
    except UserError:
        raise
    except RecursionError as error:
        raise UserError(f"{where} is nested too deep; expected JSON of a few levels.") from error
    except ValueError as error:
        raise UserError(f"{where} is not JSON: {error}.") from error
    if _is_deeper(value, _MAX_DEPTH):
        raise UserError(f"{where} is nested too deep; expected JSON of a few levels.")
    return value


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        duplicate = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"field {shorten(duplicate)} is there twice")
    return fields


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


def _is_deeper(value: object, most: int) -> bool:
    """Return whether lists and objects are nested more than `most` times, without recursion."""
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


def cache_folder() -> Path:
    """Return the folder for what can be computed again: compiled programs, benchmarks, encodings.

    It is `$DSD_CACHE`, else `$XDG_CACHE_HOME/dsd_jax`, else `~/.cache/dsd_jax`.

    Raises:
        UserError: none of these is known, as for a user without a home folder.
    """
    if named := os.environ.get("DSD_CACHE"):
        return Path(named).absolute()
    if os.path.isabs(shared := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(shared, "dsd_jax")
    try:
        return Path(_USUAL_CACHE).expanduser()
    except RuntimeError as error:
        raise UserError(
            "there is no home folder to keep caches in; set DSD_CACHE to a folder that can be "
            "written to."
        ) from error


def expand(path: str | os.PathLike) -> Path:
    """Return `path` with `~` and `~user` written out; `~/.cache/dsd_jax` is the `cache_folder`.

    Raises:
        UserError: there is no such home folder.
    """
    path = Path(path)
    if path.is_relative_to(_USUAL_CACHE):
        return cache_folder() / path.relative_to(_USUAL_CACHE)
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: no home folder is known for '{path.parts[0]}'; write the path out."
        ) from error
