"""Config files: Python files with a `get_config` function that returns a `ConfigDict`.

A config is a `ConfigDict` while it is read and overridden; `check` makes of it the frozen, typed
object that programs receive. ml_collections' own flags answer a misspelt field with a traceback and
know neither ranges nor descriptions, so all that is done here.
"""

import ast
import difflib
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError
from pydantic import ValidationError

from dsd_jax.config.fields import Kind, class_of, defaults_of, flatten, known_fields
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.terminal import printable, shorten
from dsd_jax.io.validation import mistakes_of, summarize

TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_MOST = 2**20  # bytes of a config file
_LONGEST = 900  # characters of an error of the file itself, or of a list of fields
_SHOWN = 80  # characters of an argument in a message
Overrides = Sequence[tuple[str, str]]  # (dotted field, text) as typed


def read_config(kind: Kind, spec: str, overrides: Overrides) -> Any:
    """Return the typed config of a file, with fields set as `--config.FIELD=VALUE` says.

    Args:
        kind: the class of the config, or what finds it by the values.
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
    path, arg = split_spec(spec)
    get_config = run_file(path).get("get_config")
    if not callable(get_config):
        raise UserError(f"{path} has no get_config function, so it is not a config file.")
    if arg is not None and not inspect.signature(get_config).parameters:
        raise UserError(f"get_config of {path} takes no argument, so drop ':{arg}'.")
    config = run_user_code(path, get_config if arg is None else lambda: get_config(arg))
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


def split_spec(spec: str) -> tuple[Path, str | None]:
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
    shown = printable(str(path))[:_LONGEST]
    if kind:
        raise UserError(f"config file {shown} {kind}; --config takes a Python file.")
    if path.suffix != ".py":
        raise UserError(f"config file {shown} is not a Python file: its name should end in .py.")
    return path, arg if dot_py else None


def run_file(path: Path) -> dict[str, object]:
    """Return the file's global names; run without importing, which would leave a cache beside it.

    Raises:
        UserError: the file can't be read, is no text, or fails when it is run.
    """
    names = {"__file__": str(path), "__name__": path.stem}
    source = read_regular_file(path, most=_MOST)
    if b"\0" in source:  # as UTF-16 has; Python names no line of it
        raise UserError(f"{path} is no text in UTF-8; save it in that encoding.")

    def run() -> None:
        exec(compile(source, path, "exec"), names)

    run_user_code(path, run)
    return names


def run_user_code(path: Path, function: Callable[[], object]) -> object:
    """Call `function`, whose code is in `path`; what goes wrong there is the user's to mend."""
    try:
        return function()
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"{path}{line}: {error.msg}.") from error
    except SystemExit as error:
        line = _line_in(path, error)
        raise UserError(
            f"{path}{line} ends the program; a config file should only return a ConfigDict."
        ) from error
    except Exception as error:
        line = _line_in(path, error)
        reason = printable(" ".join(str(error).split()))[:_LONGEST]
        raise UserError(f"{path}{line}: {type(error).__name__}: {reason}.") from error


def _line_in(path: Path, error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
    return f", line {frames[-1].lineno}" if frames else ""


def check(kind: Kind, config: ConfigDict, spec: str, overrides: Overrides = ()) -> Any:
    """Return the typed object of the class `kind` that a config describes.

    Args:
        kind: the class of the config, or what finds it by the values.
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
            origin = origin_of(field, overrides) or spec
            unknown = clause == f"'{field}' is unknown"
            hint = _did_you_mean(field, list(known_fields(kind, values))) if unknown else ""
            by_origin.setdefault(origin, []).append(clause + (hint and f"; {hint}"))
        parts = [f"{origin}: {summarize(clauses)}" for origin, clauses in by_origin.items()]
        raise UserError("; ".join(parts) + ".") from error


def origin_of(field: str, overrides: Overrides) -> str:
    """Return the last argument that set a field, or the list or group that it is in; or ""."""
    for name, text in reversed(overrides):
        if field == name or field.startswith(f"{name}."):
            return as_typed(name, text)
    return ""


def as_typed(field: str, text: str) -> str:
    """Return the argument that sets a field, in one line of limited length."""
    text, field = (x if x.isprintable() else ascii(x) for x in (text, field))
    return f"--config.{field}={text if len(text) <= _SHOWN else text[: _SHOWN - 3] + '...'}"


def override(
    config: ConfigDict, field: str, text: str, defaults: Mapping[str, Any] | None = None
) -> None:
    """Set the dotted `field` to what `text` says, read as the type of the value that is there.

    Args:
        config: changed in place.
        field: its name.
        text: of the value.
        defaults: values of fields that may be set although the config does not have them.

    Raises:
        UserError: the field is unknown (the closest one is named), or the text of another type.
    """
    defaults = defaults or {}
    group, names = config, field.split(".")
    for depth, name in enumerate(names):
        inside = isinstance(group, ConfigDict)
        if inside and name not in group and depth == len(names) - 1 and field in defaults:
            with group.unlocked():
                group[name] = defaults[field]
        if not inside or name not in group:
            unknown = ".".join(names[: depth + 1])
            raise UserError(unknown_field(config, unknown, field, defaults))
        parent, group = group, group[name]
    if isinstance(group, ConfigDict):
        inner = ", ".join(f"{field}.{name}" for name in group)
        raise UserError(f"--config.{field} is a group of fields; set one of {inner}.")
    if text == "None" and defaults.get(field, "") is None:  # such as "all items"
        with parent.ignore_type():
            parent[names[-1]] = None
        return
    kind = parent.get_type(names[-1])
    try:
        parent[names[-1]] = read_value(text, kind, default=group)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{as_typed(field, text)}: expected {kind.__name__}; the default is {group!r}."
        ) from error


def unknown_field(
    config: ConfigDict, name: str, field: str, defaults: Mapping[str, Any] | None = None
) -> str:
    """Return the sentence for a field that is not there."""
    known = list(dict.fromkeys([*field_names(config), *(defaults or {})]))
    hint = _did_you_mean(field, known)
    listed = ", ".join(known)
    if len(listed) > _LONGEST:
        shown = listed[:_LONGEST].rpartition(", ")[0]
        listed = f"{shown} and others, which --help lists"
    return f"the config has no field {shorten(name)}; {hint and f'{hint} '}Fields: {listed}."


def _did_you_mean(field: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(field, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def field_names(config: ConfigDict) -> list[str]:
    """Return the dotted names of all fields, sorted (which is ConfigDict's order)."""
    return [name for name, _ in flatten(config.to_dict())]


def read_value(text: str, kind: type, default: object) -> object:
    """Read `text` as a `kind`; raises ValueError, SyntaxError or TypeError."""
    if kind is bool:
        if text.lower() not in TRUTH:
            raise ValueError(text)
        return TRUTH[text.lower()]
    if kind in (tuple, list):
        return kind(read_items(text, default))
    if kind is not type(None):
        return kind(text)
    try:  # the default is None, which says nothing about what may be there
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def read_items(text: str, default: Sequence) -> list:
    """Read `(1, 2)`, `[1, 2]`, `1,2` or `dsd,noise`, each as the type of the first default.

    Where that is a number, whole numbers and fractions may stand side by side.
    """
    example = default[0] if default else None
    if isinstance(example, tuple | list):
        return list(ast.literal_eval(text))
    items = [item.strip().strip("'\"") for item in text.strip().strip("()[]").split(",")]
    if type(example) in (int, float):
        return [_read_number(item) for item in items if item]
    return [read_value(item, type(example), example) for item in items if item]


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
