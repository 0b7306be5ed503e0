"""The fields of a config by dotted name: their defaults, their descriptions, and their overrides.

A class that derives from `Checked` describes them; a `ConfigDict` holds their values until `check`
(in `config_files`) makes the typed object.
"""

import ast
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from ml_collections import ConfigDict
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import did_you_mean, shorten

# The class of a config, or a function that finds it by the values.
ConfigClass = type[BaseModel] | Callable[[Mapping[str, Any]], type[BaseModel]]

_BOOLEANS = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}
_MAX_LISTED = 900  # characters of a list of fields in a message
_MAX_SHOWN = 80  # characters of an argument in a message
_MAX_ALIGNED = 48  # characters of a setting in --help, beyond which its description is not aligned


def class_of(kind: ConfigClass, values: Mapping[str, Any]) -> type[BaseModel]:
    """Return the class that checks a config with these values."""
    return kind if isinstance(kind, type) else kind(values)


def known_fields(kind: ConfigClass, values: Mapping[str, Any]) -> dict[str, FieldInfo]:
    """Return all fields of a config by dotted name, in the order of the class.

    Args:
        kind: the class of the config, or a function that finds it by the values.
        values: of its fields; which groups there are depends on them, such as the recipes in
            `learn` and the benchmark by `data.name`.
    """
    return dict(_walk(class_of(kind, values), values, ""))


def _walk(kind: type[BaseModel], values: Any, prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in kind.model_fields.items():
        value = values.get(name) if isinstance(values, Mapping) else None
        if not _classes(field.annotation):
            yield f"{prefix}{name}", field
        for inner, group, inside in _groups(field.annotation, value):
            yield from _walk(group, inside, f"{prefix}{name}.{inner}")


def _groups(annotation: Any, value: Any) -> Iterator[tuple[str, type[BaseModel], Any]]:
    """Yield (prefix, class, values) of the groups of fields in a field of this type."""
    classes, values = _classes(annotation), value if isinstance(value, Mapping) else {}
    if getattr(annotation, "__origin__", None) is dict:
        for key in values:
            yield f"{key}.", classes[0], values[key]
    elif len(classes) == 1:
        yield "", classes[0], value
    for each in classes if len(classes) > 1 else ():  # of a union, told apart by their name
        if each.model_fields["name"].default == values.get("name"):
            yield "", each, value


def _classes(annotation: Any) -> list[type[BaseModel]]:
    """Return the models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [each for part in get_args(annotation) for each in _classes(part)]


def defaults_of(kind: ConfigClass, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the defaults of a config's fields by dotted name, without fields that have none."""
    known = known_fields(kind, values)
    return {name: field.get_default() for name, field in known.items() if not field.is_required()}


def default_values(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults of a class as nested dictionaries, without fields that have none."""
    values = {}
    for name, field in kind.model_fields.items():
        if not field.is_required():
            value = field.get_default()
            values[name] = default_values(type(value)) if isinstance(value, BaseModel) else value
    return values


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested dictionaries."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def describe(kind: ConfigClass, values: Mapping[str, Any]) -> str:
    """Return one line per field of a config for --help: its value as an argument, its description.

    Args:
        kind: the class of the config, or a function that finds it by the values.
        values: what the config file sets.
    """
    known, given = known_fields(kind, values), dict(flatten(values))
    lines = {}
    for name in dict.fromkeys([*known, *given]):
        field = known.get(name)
        if name in given or (field and not field.is_required()):
            value = given[name] if name in given or not field else field.get_default()
            shown = ",".join(map(str, value)) if value and type(value) in (tuple, list) else value
            lines[f"--config.{name}={shown}"] = (field.description or "") if field else ""
    width = min(max(map(len, lines), default=0), _MAX_ALIGNED)
    return "\n".join(f"  {setting:<{width}}  {lines[setting]}".rstrip() for setting in lines)


def override(
    config: ConfigDict, field: str, text: str, defaults: Mapping[str, Any] | None = None
) -> None:
    """Set the dotted `field` of `config` to `text`, read as the type of the value that is there.

    Args:
        config: changed in place.
        field: its name.
        text: of the value.
        defaults: values of fields that may be set although the config does not have them.

    Raises:
        UserError: the field is unknown (the closest one is named), or the text of another type.
    """
    defaults = defaults or {}
    names = field.split(".")
    parent: Any = config
    group: Any = config
    for depth, name in enumerate(names):
        inside = isinstance(group, ConfigDict)
        if inside and name not in group and depth == len(names) - 1 and field in defaults:
            with group.unlocked():
                group[name] = defaults[field]
        if not inside or name not in group:
            known = [*dict(flatten(config.to_dict())), *defaults]
            raise UserError(_unknown_field(".".join(names[: depth + 1]), field, known))
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
        parent[names[-1]] = _read_value(text, kind, default=group)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise UserError(
            f"{as_typed(field, text)}: expected {kind.__name__}; the default is {group!r}."
        ) from error


def as_typed(field: str, text: str) -> str:
    """Return the argument that sets a field, in one line of limited length."""
    text, field = (x if x.isprintable() else ascii(x) for x in (text, field))
    return f"--config.{field}={text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + '...'}"


def _unknown_field(name: str, field: str, known: Sequence[str]) -> str:
    hint = did_you_mean(field, known)
    listed = ", ".join(dict.fromkeys(known))
    if len(listed) > _MAX_LISTED:
        shown = listed[:_MAX_LISTED].rpartition(", ")[0]
        listed = f"{shown} and others, which --help lists"
    return f"the config has no field {shorten(name)}; {hint and f'{hint} '}Fields: {listed}."


def _read_value(text: str, kind: type, default: object) -> object:
    """Return `text` as a `kind`; raise ValueError, SyntaxError or TypeError where it is none."""
    if kind is bool:
        if text.lower() not in _BOOLEANS:
            raise ValueError(text)
        return _BOOLEANS[text.lower()]
    if kind in (tuple, list):
        return kind(_read_items(text, default))
    if kind is not type(None):
        return kind(text)
    try:  # the default is None, which says nothing about what may be there
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return text


def _read_items(text: str, default: Any) -> list:
    """Return the items of `(1, 2)`, `[1, 2]`, `1,2` or `dsd,noise`.

    Each is read as the type of the first default; where that is a number, whole
    numbers and fractions may stand side by side.
    """
    example = default[0] if default else None
    if isinstance(example, tuple | list):
        return list(ast.literal_eval(text))
    items = [item.strip().strip("'\"") for item in text.strip().strip("()[]").split(",")]
    if type(example) in (int, float):
        return [_read_number(item) for item in items if item]
    return [_read_value(item, type(example), example) for item in items if item]


def _read_number(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:
        return float(text)
