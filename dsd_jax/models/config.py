"""Reading a component's `config.json`: what must be there, and what we refuse."""

from collections.abc import Mapping, Sequence
from typing import Any

from dsd_jax.errors import UserError


def read_fields(file: str, json: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The fields that have no sensible default; `UserError` lists those that are missing."""
    missing = [name for name in names if name not in json]
    if missing:
        raise UserError(
            f"{file}: {', '.join(missing)} missing; expected the config that diffusers writes."
        )
    return {name: json[name] for name in names}


def refuse(file: str, json: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise `UserError` where an option asks for a network other than the one we build."""
    for name, expected in fixed.items():
        value = json.get(name, expected)
        if value != expected and not (value is None and not expected):
            raise UserError(f"{file}: {name} is {value!r}, but only {expected!r} is supported.")


def per_block(name: str, value: int | Sequence[int], blocks: int) -> tuple[int, ...]:
    """One number for every resolution, or one for all."""
    values = (value,) * blocks if isinstance(value, int) else tuple(value)
    if not all(isinstance(number, int) for number in values):
        raise UserError(
            f"unet/config.json: {name} is {value!r}, but only whole numbers, one for each block, "
            "are supported."
        )
    if len(values) != blocks:
        raise UserError(
            f"unet/config.json: {name} has {len(values)} entries but block_out_channels has "
            f"{blocks}; give one number, or one for each."
        )
    return values
