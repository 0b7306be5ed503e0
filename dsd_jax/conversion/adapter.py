"""An adapter as its file has it, with every tensor's place in the UNet known; and as prompts."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsd_jax.conversion.adapter_names import Name, parse
from dsd_jax.errors import UserError
from dsd_jax.prompts import from_authors
from dsd_jax.weights.stored import FLOATING, Stored

_SHOWN = 4  # names written out in an error
_PEFT_ALPHA = 8  # what PEFT's LoraConfig has where a file does not say


@dataclass(frozen=True)
class Adapter:
    """Low-rank updates of the UNet's attention projections.

    Attributes:
        source: the file, for messages.
        tensors: `down` (rank, in), `up` (out, rank) and perhaps `alpha` of each projection.
        spelled: what the file calls each.
        config: what it tells of PEFT's `LoraConfig`; empty where the scale is 1.
        complete: whether its format always has every attention layer of a UNet, as the authors'.
    """

    source: str
    tensors: Mapping[Name, np.ndarray]
    spelled: Mapping[Name, str]
    config: Mapping[str, Any]
    complete: bool


def make_adapter(
    source: str, named: Mapping[str, np.ndarray | Stored], config: Mapping[str, Any]
) -> Adapter:
    """Finds every tensor's place, then reads those that are not read yet.

    Raises:
        UserError: one is of another layer than prompts reach, is there twice, or is not of floats.
    """
    tensors: dict[Name, np.ndarray] = {}
    spelled: dict[Name, str] = {}
    foreign = [name for name in named if parse(name) is None]
    if foreign or not named:
        raise UserError(_foreign(source, foreign, len(named)))
    for spelling, tensor in named.items():
        name = parse(spelling)
        if name in spelled:
            raise UserError(f"{source} has {spelling} twice, once as {spelled[name]}; keep one.")
        if str(tensor.dtype) not in FLOATING:
            raise UserError(
                f"{source}: {spelling} is of {tensor.dtype}, expected one of {', '.join(FLOATING)}."
            )
        tensors[name] = tensor.read() if isinstance(tensor, Stored) else tensor
        spelled[name] = spelling
    complete = any(".processor." in spelling for spelling in named)
    return Adapter(source, tensors, spelled, config, complete)


def _foreign(source: str, names: list[str], count: int) -> str:
    """The message on tensors that no prompts can hold."""
    if len(names) == count:
        start = f"{source} is no LoRA for the attention of a Stable Diffusion 1.x or 2.x UNet"
    else:
        start = f"{source} has {len(names)} of {count} tensors that prompts have no place for"
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (
        f"{start}: {', '.join(names[:_SHOWN]) or 'it is empty'}{more}; expected low-rank updates "
        "of the UNet's attention projections alone (target_modules to_q, to_k, to_v, to_out.0)."
    )


def to_prompts(adapter: Adapter) -> dict[str, Any]:
    """Prompts (kind "lora", float32) that change the UNet as the adapter does: scale 1.

    Raises:
        UserError: a number is not finite.
    """
    named = {}
    for name, tensor in adapter.tensors.items():
        if name.part == "alpha":
            continue
        numbers = np.asarray(tensor, np.float32)
        if name.part == "up":
            numbers = numbers * np.float32(_scale(adapter, name, tensor.shape[1]))
        if not np.isfinite(numbers).all():
            raise UserError(
                f"{adapter.source}: {adapter.spelled[name]} holds numbers that are not finite; "
                "train it again or fetch it again."
            )
        named[name.authors] = numbers
    return from_authors(named)


def _scale(adapter: Adapter, name: Name, rank: int) -> float:
    """By what the update is multiplied: alpha over rank, 1 where the file tells no alpha."""
    alpha = adapter.tensors.get(name._replace(part="alpha"))
    if alpha is not None:
        return float(alpha.reshape(())) / rank
    if not adapter.config:
        return 1.0
    try:
        alpha = float(_configured_alpha(adapter.config, name.module))
    except (re.error, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{adapter.source}: its LoRA config has no usable lora_alpha or alpha_pattern "
            f"({error}); save the adapter again with diffusers or PEFT."
        ) from error
    return alpha / (rank**0.5 if adapter.config.get("use_rslora") else rank)


def _configured_alpha(config: Mapping[str, Any], module: str) -> Any:
    """Patterns are regular expressions for a module path's end (PEFT, `get_pattern_key`)."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return alpha
    return config.get("lora_alpha", _PEFT_ALPHA)
