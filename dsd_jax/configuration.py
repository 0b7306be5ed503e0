"""Config files: Python files with a `get_config` function that returns a `ConfigDict`.

ml_collections' own flags answer a misspelt field with a traceback and cannot list the fields with
their comments, so reading and overriding a config are done here, describing it in `config_help`.
"""

import ast
import difflib
import inspect
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ml_collections import ConfigDict

from dsd_jax.errors import UserError

TRUTH = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def load_config(spec: str) -> ConfigDict:
    """Returns the locked config of `path.py` or `path.py:arg`, where `arg` goes to `get_config`.

    Raises `UserError` if there is no such file or it does not give a `ConfigDict`.
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
    return config.lock()


def split_spec(spec: str) -> tuple[Path, str | None]:
    """`configs/emoji.py:quick` -> the path and `quick`; without a colon the latter is None."""
    path, dot_py, arg = spec.partition(".py:")
    path = Path(path + ".py") if dot_py else Path(spec)
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UserError(f"config file {path} {kind}; --config takes a Python file.")
    if path.suffix != ".py":
        raise UserError(f"config file {path} is not a Python file: its name should end in .py.")
    return path, arg if dot_py else None


def run_file(path: Path) -> dict[str, object]:
    """The file's global names; run without importing, which would leave a cache beside it."""
    names = {"__file__": str(path), "__name__": path.stem}

    def run() -> None:
        exec(compile(path.read_bytes(), path, "exec"), names)

    run_user_code(path, run)
    return names


def run_user_code(path: Path, function: Callable[[], object]) -> object:
    """Calls `function`, whose code is in `path`; what goes wrong there is the user's to mend."""
    try:
        return function()
    except UserError:
        raise
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = f", line {frames[-1].lineno}" if frames else ""
        raise UserError(f"{path}{line}: {type(error).__name__}: {error}.") from error


def override(config: ConfigDict, field: str, text: str) -> None:
    """Sets the dotted `field` to what `text` says, read as the type of the value that is there.

    Raises `UserError` for unknown fields, with the closest match, and for text of another type.
    """
    group, names = config, field.split(".")
    for depth, name in enumerate(names):
        if not isinstance(group, ConfigDict) or name not in group:
            raise UserError(unknown_field(config, ".".join(names[: depth + 1]), field))
        parent, group = group, group[name]
    if isinstance(group, ConfigDict):
        inner = ", ".join(f"{field}.{name}" for name in group)
        raise UserError(f"--config.{field} is a group of fields; set one of {inner}.")
    kind = parent.get_type(names[-1])
    try:
        parent[names[-1]] = read_value(text, kind, default=group)
    except (ValueError, SyntaxError, TypeError) as error:
        raise UserError(
            f"--config.{field}={text}: expected {kind.__name__}; the default is {group!r}."
        ) from error


def unknown_field(config: ConfigDict, name: str, field: str) -> str:
    """The sentence for a field that is not there."""
    known = field_names(config)
    close = difflib.get_close_matches(field, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    return f"the config has no field '{name}'; {hint}Fields: {', '.join(known)}."


def field_names(config: ConfigDict) -> list[str]:
    """Dotted names of all fields, sorted (which is ConfigDict's order)."""
    return [name for name, _ in flatten(config.to_dict())]


def flatten(fields: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yields dotted names and values of nested dictionaries."""
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def read_value(text: str, kind: type, default: object) -> object:
    """Reads `text` as a `kind`; raises ValueError, SyntaxError or TypeError."""
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
    except (ValueError, SyntaxError):
        return text


def read_items(text: str, default: Sequence) -> list:
    """Reads `(1, 2)`, `[1, 2]`, `1,2` or `dsd,noise`, each as the type of the first default."""
    example = default[0] if default else None
    if isinstance(example, tuple | list):
        return list(ast.literal_eval(text))
    items = [item.strip().strip("'\"") for item in text.strip().strip("()[]").split(",")]
    return [read_value(item, type(example), example) for item in items if item]
