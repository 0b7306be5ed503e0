"""What `--config=FILE --help` says: the fields of a config, their values and what they do."""

from dsd_jax.config.config_files import load_config
from dsd_jax.config.fields import Kind, flatten, known_fields

_WIDEST = 48  # characters of a setting, beyond which descriptions are not aligned


def describe(spec: str, kind: Kind) -> str:
    """Return one line per field of the config at `spec`: name, value and description.

    Args:
        spec: a config file, with its argument if it takes one.
        kind: the class that checks the config, or what finds it by the values.
    """
    values = load_config(spec).to_dict()
    known, there = known_fields(kind, values), dict(flatten(values))
    lines = {}
    for name in dict.fromkeys([*known, *there]):
        field = known.get(name)
        if name in there or not field.is_required():
            value = there[name] if name in there else field.get_default()
            setting = f"--config.{name}={show_value(value)}"
            lines[setting] = (field.description or "") if field else ""
    width = min(max(map(len, lines), default=0), _WIDEST)
    return "\n".join(f"  {setting:<{width}}  {lines[setting]}".rstrip() for setting in lines)


def show_value(value: object) -> str:
    """Return a value as one would type it in an override."""
    if isinstance(value, tuple | list) and value:
        return ",".join(map(str, value))
    return str(value)
