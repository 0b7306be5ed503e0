"""Config files: Python files with a `get_config` function that returns a `ConfigDict`.

A config is a `ConfigDict` while it is read and overridden; `check` makes of it the frozen, typed
object that programs receive. ml_collections' own flags answer a misspelt field with a traceback and
know neither ranges nor descriptions, so all that is done here.
"""

import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError
from pydantic import ValidationError

from dsd_jax.config.fields import (
    ConfigClass,
    as_typed,
    class_of,
    defaults_of,
    did_you_mean,
    known_fields,
    override,
)
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.terminal import printable, shorten
from dsd_jax.io.validation import mistakes_of, summarize

# Modules that configs may have imported before there were packages, where their names changed;
# those that kept their name are found by it.
_RENAMED = {
    "command": "dsd_jax.cli",
    "configuration": "dsd_jax.config.config_files",
    "recipe": "dsd_jax.config.recipes",
    "readings": "dsd_jax.config.score_spec",
    "hosts": "dsd_jax.distributed.processes",
    "home": "dsd_jax.io.local_files",
    "folders": "dsd_jax.io.storage",
}
_MAX_BYTES = 2**20  # of a config file
_MAX_REASON = 900  # characters of an error of the file itself
Overrides = Sequence[tuple[str, str]]  # (dotted field, text) as typed


def read_config(kind: ConfigClass, spec: str, overrides: Overrides) -> Any:
    """Return the typed config of a file, with fields set as `--config.FIELD=VALUE` says.

    Args:
        kind: the class of the config, or a function that finds it by the values.
        spec: `path.py` or `path.py:arg`.
        overrides: what was typed, in order.

    Raises:
        UserError: the file or a field is not as it should be.
    """
    config = load_config(spec)
    for field, text in overrides:
        override(config, field, text, defaults_of(kind, config.to_dict()))
    return check(kind, config, spec, overrides)


def load_config(spec: str) -> ConfigDict:
    """Return the locked config of `path.py` or `path.py:arg`, where `arg` goes to `get_config`.

    Raises:
        UserError: there is no such file or it does not give a `ConfigDict`.
    """
    path, arg = _split_spec(spec)
    get_config = _run_file(path).get("get_config")
    if not callable(get_config):
        raise UserError(f"{path} has no get_config function, so it is not a config file.")
    if arg is not None and not inspect.signature(get_config).parameters:
        raise UserError(f"get_config of {path} takes no argument, so drop ':{arg}'.")
    config = _run_user_code(path, get_config if arg is None else lambda: get_config(arg))
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config of {path} returned {type(config).__name__}, not an "
            "ml_collections.ConfigDict."
        )
    try:
        config.to_dict()
    except RequiredValueError as error:
        raise UserError(f"{path}: a required placeholder has no value; give it one.") from error
    return config.lock()


def _split_spec(spec: str) -> tuple[Path, str | None]:
    """Return the path and the argument of `configs/emoji.py:quick`; None where it has no colon.

    Raises:
        UserError: it is not the name of a Python file.
    """
    path, dot_py, arg = spec.partition(".py:")
    path = Path(path + ".py") if dot_py else Path(spec)
    try:
        kind = "is a folder" if path.is_dir() else "" if path.exists() else "does not exist"
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"config file {shorten(spec)} can't be read ({reason}).") from error
    shown = printable(str(path))[:_MAX_REASON]
    if kind:
        raise UserError(f"config file {shown} {kind}; --config takes a Python file.")
    if path.suffix != ".py":
        raise UserError(f"config file {shown} is not a Python file: its name should end in .py.")
    return path, arg if dot_py else None


def _run_file(path: Path) -> dict[str, Any]:
    """Return the file's global names; run without importing, which would leave a cache beside it.

    Raises:
        UserError: the file can't be read, is no text, or fails when it is run.
    """
    names = {"__file__": str(path), "__name__": path.stem}
    source = read_regular_file(path, most=_MAX_BYTES)
    if b"\0" in source:  # as UTF-16 has; Python names no line of it
        raise UserError(f"{path} is no text in UTF-8; save it in that encoding.")
    _run_user_code(path, lambda: exec(compile(source, path, "exec"), names))
    return names


def _run_user_code(path: Path, function: Callable[[], object]) -> object:
    """Call `function`, whose code is in `path`; its errors become `UserError`s."""
    try:
        return function()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"{path}{line}: {error.msg}.") from error
    except SystemExit as error:
        raise UserError(
            f"{path}{_line_in(path, error)} ends the program; a config file should only return a "
            "ConfigDict."
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        reason = _moved_module(error) or printable(reason)[:_MAX_REASON]
        raise UserError(f"{path}{_line_in(path, error)}: {reason}.") from error


def _line_in(path: Path, error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def _moved_module(error: Exception) -> str:
    """Return the sentence for an import of a module of ours that has moved; "" for other errors."""
    old = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing := re.match(r"cannot import name '(\w+)' from 'dsd_jax'", str(error)):
        old = f"dsd_jax.{missing[1]}"
    name, package = (old or "").rpartition(".")[2], Path(__file__).parents[1]
    if not old or not old.startswith("dsd_jax.") or not name.isidentifier():
        return ""
    files = [file.relative_to(package.parent) for file in package.rglob(f"{name}.py")]
    places = [".".join(file.with_suffix("").parts) for file in files]
    new = _RENAMED.get(name) or (places[0] if len(places) == 1 else "")
    return f"{old} is now {new}; import it from there" if new else ""


def check(kind: ConfigClass, config: ConfigDict, spec: str, overrides: Overrides = ()) -> Any:
    """Return the typed object that a config describes.

    Args:
        kind: the class of the config, or a function that finds it by the values.
        config: the file's, with the overrides applied.
        spec: what `load_config` read it from.
        overrides: what was applied.

    Raises:
        UserError: fields are missing, unknown, of another type or out of range; says of each where
            it was set.
    """
    values = config.to_dict()
    try:
        return class_of(kind, values).model_validate(values)
    except ValidationError as error:
        by_origin: dict[str, list[str]] = {}
        for field, clause in mistakes_of(error):
            unknown = clause == f"'{field}' is unknown"
            hint = did_you_mean(field, list(known_fields(kind, values))) if unknown else ""
            clauses = by_origin.setdefault(_origin_of(field, overrides) or spec, [])
            clauses.append(clause + (hint and f"; {hint}"))
        parts = [f"{origin}: {summarize(clauses)}" for origin, clauses in by_origin.items()]
        raise UserError("; ".join(parts) + ".") from error


def _origin_of(field: str, overrides: Overrides) -> str:
    """Return the last argument that set a field, or the list or group that it is in; or ""."""
    for name, text in reversed(overrides):
        if field == name or field.startswith(f"{name}."):
            return as_typed(name, text)
    return ""
