"""Config files: Python files with a `get_config` function that returns a `ConfigDict`.

A config is a `ConfigDict` while it is read and overridden; `check` makes of it the frozen, typed
object that programs receive. ml_collections' own flags answer a misspelt field with a traceback and
know neither ranges nor descriptions, so all that is done here.
"""

import inspect
import re
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import RequiredValueError
from pydantic import ValidationError

from dsd_jax.config.bundled_configs import config_names, find_config
from dsd_jax.config.fields import (
    ConfigClass,
    as_typed,
    class_of,
    defaults_of,
    known_fields,
    override,
)
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.terminal import did_you_mean, printable, shorten
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
_NAME = re.compile(r"[\w-]+(:.*)?", re.DOTALL)  # of a config that comes with the program
# {field: the commands whose configs alone have it}
_COMMANDS_OF = {"data": "train, evaluate or plan", "model": "pretrain"}
_MAX_BYTES = 2**20  # of a config file
_MAX_REASON = 900  # characters of an error of the file itself
Overrides = Sequence[tuple[str, str]]  # (dotted field, text) as typed


def read_config(kind: ConfigClass, spec: str, overrides: Overrides) -> Any:
    """Return the typed config of a file, with fields set as `--config.FIELD=VALUE` says.

    Args:
        kind: the class of the config, or a function that finds it by the values.
        spec: the name of a config that comes with the program or the path of a Python file, either
            with `:arg` behind it, such as `emoji:full` and `mine.py`. The path that such a config
            has in the repository, `configs/emoji.py`, names it wherever there is no such file.
        overrides: what was typed, in order.

    Raises:
        UserError: the file or a field is not as it should be.
    """
    config = load_config(spec)
    _check_commands(kind, config, spec)
    for field, text in overrides:
        override(config, field, text, defaults_of(kind, config.to_dict()))
    return check(kind, config, spec, overrides)


def _check_commands(kind: ConfigClass, config: ConfigDict, spec: str) -> None:
    """Raise `UserError` for a config of other commands, by a field that only theirs have."""
    wanted = "model"  # whose class is found by it
    if isinstance(kind, type):
        wanted = "data" if "data" in kind.model_fields else ""
    for field, commands in _COMMANDS_OF.items():
        if wanted and field != wanted and field in config and wanted not in config:
            raise UserError(
                f"{spec} is a config of {commands}; give it to that command, or name a config of "
                f"{_COMMANDS_OF[wanted]} here."
            )


def load_config(spec: str) -> ConfigDict:
    """Return the locked config of a spec, whose argument goes to `get_config`.

    Args:
        spec: as `read_config` takes it.

    Raises:
        UserError: there is no such config or file, or it does not give a `ConfigDict`.
    """
    source = _find_source(spec)
    name, arg = source.name, source.arg
    get_config = _run_file(source).get("get_config")
    if not callable(get_config):
        raise UserError(f"{name} has no get_config function, so it is not a config file.")
    if arg is not None and not inspect.signature(get_config).parameters:
        raise UserError(f"get_config of {name} takes no argument, so drop ':{arg}'.")
    config = _run_user_code(source, get_config if arg is None else lambda: get_config(arg))
    if not isinstance(config, ConfigDict):
        raise UserError(
            f"get_config of {name} returned {type(config).__name__}, not an "
            "ml_collections.ConfigDict."
        )
    try:
        config.to_dict()
    except RequiredValueError as error:
        raise UserError(f"{name}: a required placeholder has no value; give it one.") from error
    return config.lock()


@dataclass(frozen=True)
class _Source:
    """A config file and what is asked of it.

    Attributes:
        path: of the file.
        name: of the config in messages: what stands before the colon of a spec.
        arg: for its `get_config`; None where the spec has no colon.
    """

    path: Path
    name: str
    arg: str | None


def _find_source(spec: str) -> _Source:
    """Return the source that a spec names.

    Raises:
        UserError: it is neither the name of a config nor of a Python file.
    """
    if _NAME.fullmatch(spec):
        name, colon, arg = spec.partition(":")
        return _Source(find_config(name), name, arg if colon else None)
    name, dot_py, arg = spec.partition(".py:")
    path = Path(name + ".py") if dot_py else Path(spec)
    try:
        kind = "is a folder" if path.is_dir() else "" if path.exists() else "does not exist"
    except (OSError, ValueError) as error:  # a name that is too long, or has a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"config file {shorten(spec)} can't be read ({reason}).") from error
    shown = printable(str(path))[:_MAX_REASON]
    is_bundled = bool(kind) and path.suffix == ".py" and path.stem in config_names()
    if is_bundled and path.parent == Path("configs"):  # as in the repository, from any folder
        return _Source(find_config(path.stem), shown, arg if dot_py else None)
    if kind:
        remedy = "--config takes a Python file, or the name of a config."
        remedy = f"did you mean --config={path.stem}?" if is_bundled else remedy
        raise UserError(f"config file {shown} {kind}; {remedy}")
    if path.suffix != ".py":
        raise UserError(f"config file {shown} is not a Python file: its name should end in .py.")
    return _Source(path, shown, arg if dot_py else None)


def _run_file(source: _Source) -> dict[str, Any]:
    """Return the file's global names; run without importing, which would leave a cache beside it.

    Raises:
        UserError: the file can't be read, is no text, or fails when it is run.
    """
    path = source.path
    names = {"__file__": str(path), "__name__": path.stem}
    content = read_regular_file(path, most=_MAX_BYTES)
    if b"\0" in content:  # as UTF-16 has; Python names no line of it
        raise UserError(f"{path} is no text in UTF-8; save it in that encoding.")
    _run_user_code(source, lambda: exec(compile(content, path, "exec"), names))
    return names


def _run_user_code(source: _Source, function: Callable[[], object]) -> object:
    """Call `function`, whose code is in the source's file; its errors become `UserError`s."""
    name, path = source.name, source.path
    try:
        return function()
    except UserError as error:
        raise UserError(f"{name}: {error}") from error
    except SyntaxError as error:
        line = f", line {error.lineno}" if error.lineno else ""
        raise UserError(f"{name}{line}: {error.msg}.") from error
    except SystemExit as error:
        raise UserError(
            f"{name}{_line_in(path, error)} ends the program; a config file should only return a "
            "ConfigDict."
        ) from error
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        reason = _moved_module(error) or printable(reason)[:_MAX_REASON]
        raise UserError(f"{name}{_line_in(path, error)}: {reason}.") from error


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
