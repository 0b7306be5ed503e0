"""The fields of a component's `config.json`: their types and ranges, and unsupported options.

Ranges are several times what published models have; they refuse sizes that no machine holds and
numbers of layers that take minutes to trace.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List

REMEDY = "use the config.json that diffusers or transformers wrote for these weights"
_MAX_BLOCKS = 8  # resolutions


class ConfigFile(Checked):
    """The fields of a `config.json`; other fields are ignored."""

    model_config = ConfigDict(extra="ignore", populate_by_name=True)


def _single(value: Any) -> Any:
    """Return the common value of a list of equal ones; any other value as it is."""
    if isinstance(value, list | tuple) and value and all(_same(x, value[0]) for x in value):
        return value[0]
    return value


def _side(value: Any) -> Any:
    """Return the side of a square, given as a number or as a pair of equal ones."""
    pair = isinstance(value, list | tuple) and len(value) == 2
    side = _single(value) if pair else value
    if type(side) is not int or side < 1:
        raise ValueError(
            f"is {shorten(value)}, expected a whole number of 1 or more, or a pair of equal ones"
        )
    return side


def _for_each(value: Any, info: ValidationInfo) -> Any:
    """Return a number for each block where one number for all is given."""
    blocks = info.data.get("block_out_channels")
    return (value,) * len(blocks or (0,)) if type(value) is int else value


def _check_count(value: Sequence[Any] | None, info: ValidationInfo) -> Any:
    blocks = info.data.get("block_out_channels")
    if value is not None and blocks and len(value) != len(blocks):
        raise ValueError(
            f"has {len(value)} entries but block_out_channels has {len(blocks)}; give as many"
        )
    return value


Activation = Literal["quick_gelu", "gelu"]
Channels = Annotated[int, Field(ge=1, le=1024)]
Width = Annotated[int, Field(ge=1, le=2**14)]
Widths = Annotated[List[Width], Field(min_length=1, max_length=_MAX_BLOCKS)]
Layers = Annotated[int, Field(ge=1, le=128)]
LayersPerBlock = Annotated[int, BeforeValidator(_single), Field(ge=1, le=16)]
PerBlock = Annotated[
    List[Annotated[int, Field(ge=1, le=64)]],
    BeforeValidator(_for_each),
    AfterValidator(_check_count),
]
Names = Annotated[List[str] | None, AfterValidator(_check_count)]  # of classes, one per block
Vocabulary = Annotated[int, Field(ge=1, le=2**20)]
Positions = Annotated[int, Field(ge=1, le=2**14)]
Side = Annotated[int, BeforeValidator(_side), Field(le=2**12)]
Epsilon = Annotated[float, Field(ge=0, lt=1)]


class TowerFile(ConfigFile):
    """The fields of the transformer layers of either tower of CLIP."""

    hidden_size: Width
    intermediate_size: Annotated[int, Field(ge=1, le=2**16)]
    num_hidden_layers: Layers
    num_attention_heads: Width
    hidden_act: Activation = "quick_gelu"
    layer_norm_eps: Epsilon = 1e-5

    @model_validator(mode="after")
    def _check_heads(self) -> "TowerFile":
        check_divisors((self.hidden_size,), (self.num_attention_heads,), "num_attention_heads")
        return self


def refuse(file: str, json: Mapping[str, Any], fixed: Mapping[str, Any]) -> None:
    """Raise `UserError` where an option of `json` differs from its only supported value."""
    for name, expected in fixed.items():
        value = json.get(name, expected)
        absent = not expected and (value is None or _same(value, 0) or _same(value, False))
        if not (absent or _same(value, expected) or _same(_single(value), expected)):
            raise UserError(
                f"{file}: {name} is {shorten(value)}, but only {expected!r} is supported."
            )


def _same(value: Any, other: Any) -> bool:
    """Return whether two values of JSON are equal; true and 1 are not."""
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def check_divisors(widths: Sequence[int], parts: Sequence[int], field: str) -> None:
    """Raise `ValueError` where a width is not divisible by its number of parts.

    Args:
        widths: of each block.
        parts: number of parts, such as heads, of each block.
        field: name of the field that gives the parts.
    """
    for width, count in zip(widths, parts, strict=True):
        if width % count:
            raise ValueError(f"{field} is {count}, expected a divisor of the width {width}")
