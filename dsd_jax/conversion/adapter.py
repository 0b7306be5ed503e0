"""An adapter as its file has it, with every tensor's place in the UNet known; and as prompts."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsd_jax.conversion.adapter_names import Name, parse
from dsd_jax.conversion.foreign_tensors import describe
from dsd_jax.conversion.peft_config import PeftConfig
from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_params import from_authors
from dsd_jax.tensor_files.stored_tensor import FLOATING, NUMBERS, Stored


@dataclass(frozen=True)
class Adapter:
    """Low-rank updates of the UNet's attention projections.

    Attributes:
        source: the file, for messages.
        tensors: `down` (rank, in), `up` (out, rank) and perhaps `alpha` of each projection.
        spelled: what the file calls each.
        config: what it tells of PEFT's `LoraConfig`; None where the scale is 1.
        complete: whether its format always has every attention layer of a UNet, as the authors'.
    """

    source: str
    tensors: Mapping[Name, np.ndarray]
    spelled: Mapping[Name, str]
    config: PeftConfig | None
    complete: bool


def make_adapter(
    source: str, named: Mapping[str, np.ndarray | Stored], config: PeftConfig | None = None
) -> Adapter:
    """Finds every tensor's place, then reads those that are not read yet.

    Raises:
        UserError: one is of another layer than prompts reach, is there twice, or is not of floats.
    """
    tensors: dict[Name, np.ndarray] = {}
    spelled: dict[Name, str] = {}
    foreign = [name for name in named if parse(name) is None]
    if foreign or not named:
        raise UserError(f"{source} {describe(foreign, named)}.")
    for spelling, tensor in named.items():
        name = parse(spelling)
        if name in spelled:
            raise UserError(f"{source} has {spelling} twice, once as {spelled[name]}; keep one.")
        known = NUMBERS if name.part == "alpha" else FLOATING
        if str(tensor.dtype) not in known:
            raise UserError(
                f"{source}: {spelling} is of {tensor.dtype}, expected one of {', '.join(known)}."
            )
        tensors[name] = tensor.read() if isinstance(tensor, Stored) else tensor
        spelled[name] = spelling
    complete = any(".processor." in spelling for spelling in named)
    return Adapter(source, tensors, spelled, config, complete)


def to_prompts(adapter: Adapter) -> dict[str, Any]:
    """Prompts (kind "lora", float32) that change the UNet as the adapter does: scale 1.

    Raises:
        UserError: a number is not finite.
    """
    named, scales = {}, _scales(adapter)
    for name, tensor in adapter.tensors.items():
        if name.part == "alpha":
            continue
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
            numbers = np.asarray(tensor, np.float32)
            if name.part == "up":
                numbers = numbers * np.float32(scales[name.module])
        if not np.isfinite(numbers).all():
            raise UserError(
                f"{adapter.source}: {adapter.spelled[name]} holds numbers that are not finite, or "
                "its alpha is too large; train it again or fetch it again."
            )
        named[name.authors] = numbers
    return from_authors(named)


def _scales(adapter: Adapter) -> dict[str, float]:
    """By what each module's update is multiplied: alpha over rank, 1 where no alpha is told."""
    ups = {name: tensor for name, tensor in adapter.tensors.items() if name.part == "up"}
    ranks = {name.module: tensor.shape[1] for name, tensor in ups.items()}
    if adapter.config is None:
        scales = dict.fromkeys(ranks, 1.0)
    else:
        scales = adapter.config.scales(ranks, adapter.source)
    for name in ups:
        alpha = adapter.tensors.get(name._replace(part="alpha"))
        if alpha is not None:
            scales[name.module] = float(alpha.reshape(())) / ranks[name.module]
    return scales
