"""Parse LoRA adapters, check that they fit a model, and turn them into prompts."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsd_jax.conversion.adapter_names import describe_foreign, parse_name
from dsd_jax.conversion.peft_config import PeftConfig
from dsd_jax.errors import UserError
from dsd_jax.prompts.lora_files import TensorName
from dsd_jax.prompts.prompt_params import from_authors
from dsd_jax.tensor_files.stored_tensor import FLOATING, NUMBERS, StoredTensor
from dsd_jax.weights.strict_fit import listed

Shapes = Mapping[str, Mapping[str, tuple[int, int]]]


@dataclass(frozen=True)
class Adapter:
    """An adapter: low-rank updates of the UNet's attention projections.

    Attributes:
        source: the file's name in messages.
        tensors: `down` (rank, in), `up` (out, rank) and perhaps `alpha` of each projection.
        spellings: the name of each in the file.
        config: PEFT's `LoraConfig` if the file has one; None where the scale is 1.
        complete: true if its format always has every attention layer of a UNet, as the authors'.
    """

    source: str
    tensors: Mapping[TensorName, np.ndarray]
    spellings: Mapping[TensorName, str]
    config: PeftConfig | None
    complete: bool


def make_adapter(
    source: str, named: Mapping[str, np.ndarray | StoredTensor], config: PeftConfig | None = None
) -> Adapter:
    """Parse the names of an adapter's tensors and read those that are not read yet.

    Args:
        source: the file's name in messages.
        named: the tensors by the names in the file.
        config: PEFT's config of it, if any.

    Raises:
        UserError: a tensor is of a layer that prompts don't reach, is there twice, or is not of
            floats.
    """
    parsed = {spelling: parse_name(spelling) for spelling in named}
    foreign = [spelling for spelling, name in parsed.items() if name is None]
    if foreign or not named:
        raise UserError(f"{source} {describe_foreign(foreign, named)}.")
    tensors: dict[TensorName, np.ndarray] = {}
    spellings: dict[TensorName, str] = {}
    for spelling, name in parsed.items():
        assert name is not None
        if name in spellings:
            raise UserError(f"{source} has {spelling} twice, once as {spellings[name]}; keep one.")
        tensor, dtypes = named[spelling], NUMBERS if name.part == "alpha" else FLOATING
        if str(tensor.dtype) not in dtypes:
            raise UserError(
                f"{source}: {spelling} is of {tensor.dtype}, expected one of {', '.join(dtypes)}."
            )
        tensors[name] = tensor.read() if isinstance(tensor, StoredTensor) else tensor
        spellings[name] = spelling
    complete = any(".processor." in spelling for spelling in named)
    return Adapter(source, tensors, spellings, config, complete)


def check_adapter(adapter: Adapter, shapes: Shapes | None, model: str = "") -> None:
    """Check that an adapter is whole and that its tensors fit a model.

    Args:
        adapter: the adapter to check.
        shapes: `attention_shapes` of the model that it is for; if None, the adapter's tensors are
            compared with each other alone.
        model: that model's name.

    Raises:
        UserError: tensors are missing, extra or of another shape, listed in one message.
    """
    wrong = list(_wrong_shapes(adapter, shapes))
    missing = [
        f"  - {name.authors if adapter.complete else name.diffusers}"
        for name in sorted(_required(adapter, shapes) - set(adapter.tensors))
    ]
    extra = [
        f"  + {adapter.spellings[name]} {tensor.shape}"
        for name, tensor in adapter.tensors.items()
        if shapes is not None and name.path not in shapes
    ]
    if lines := listed("adapter", missing, extra, wrong):
        failure = "is not a whole adapter; fetch it again, or save it again"
        if model:
            failure = (
                f"does not fit {model}; give the model it was trained for, and all of its file"
            )
        raise UserError(f"{adapter.source} {failure}:\n" + "\n".join(lines))


def _required(adapter: Adapter, shapes: Shapes | None) -> set[TensorName]:
    """Return both parts of the projections present, and of all if its format has them all."""
    required = {(name.path, name.projection) for name in adapter.tensors}
    if adapter.complete and shapes is not None:
        required |= {(path, projection) for path in shapes for projection in shapes[path]}
    return {TensorName(*projection, part) for projection in required for part in ("down", "up")}


def _wrong_shapes(adapter: Adapter, shapes: Shapes | None) -> Iterable[str]:
    """Yield a line for every tensor of another shape than it should have."""
    for name, tensor in adapter.tensors.items():
        expected = _expected(adapter, name, (shapes or {}).get(name.path, {}).get(name.projection))
        if name.part == "alpha":  # one number, in whatever shape
            if tensor.size != 1:
                yield f"  ~ {adapter.spellings[name]} is {tensor.shape}, expected one number"
            continue
        fits = tensor.ndim == len(expected) and all(
            size and expected_size in (None, size)
            for expected_size, size in zip(expected, tensor.shape, strict=True)
        )
        if not fits:
            shape = ", ".join("any" if size is None else str(size) for size in expected)
            yield f"  ~ {adapter.spellings[name]} is {tensor.shape}, expected ({shape})"


def _expected(
    adapter: Adapter, name: TensorName, shape: tuple[int, int] | None
) -> tuple[int | None, ...]:
    """Return the shape that a tensor should have, None for sizes that may be any number."""
    inputs, outputs = shape or (None, None)
    down = adapter.tensors.get(name._replace(part="down"))
    rank = down.shape[0] if down is not None and down.ndim == 2 else None
    return (rank, inputs) if name.part == "down" else (outputs, rank)


def to_prompts(adapter: Adapter) -> dict[str, Any]:
    """Return prompts (kind "lora", float32) that change the UNet as the adapter does.

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
                f"{adapter.source}: {adapter.spellings[name]} holds numbers that are not finite, "
                "or its alpha is too large; train it again or fetch it again."
            )
        named[name.authors] = numbers
    return from_authors(named)


def _scales(adapter: Adapter) -> dict[str, float]:
    """Return the LoRA scale of each module: alpha / rank, or 1 if the adapter has no alpha."""
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
