"""The fields that a config may have, by the class that checks it: names, defaults, descriptions."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

Fields = dict[str, FieldInfo]
Kind = type[BaseModel] | Callable[[Mapping[str, Any]], type[BaseModel]]


def class_of(kind: Kind, values: Any) -> type[BaseModel]:
    """Return the class that checks a config with such values."""
    return kind if isinstance(kind, type) else kind(values)


def known_fields(kind: Kind, values: Any) -> Fields:
    """Return all fields of a config by dotted name, in the order of the class.

    Args:
        kind: the class of the config, or what finds it by the values.
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


def defaults_of(kind: Kind, values: Any) -> dict[str, Any]:
    """Return the defaults of a config's fields by dotted name, without fields that have none."""
    known = known_fields(kind, values)
    return {name: field.get_default() for name, field in known.items() if not field.is_required()}


def default_values(kind: type[BaseModel]) -> dict[str, Any]:
    """Return the defaults of a class as nested dictionaries, without fields that have none."""
    found = {}
    for name, field in kind.model_fields.items():
        if not field.is_required():
            value = field.get_default()
            found[name] = default_values(type(value)) if isinstance(value, BaseModel) else value
    return found


def flatten(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted names and values of nested dictionaries."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
