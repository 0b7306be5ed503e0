"""Lowering for an NVIDIA GPU where there is none: what can be known without its compiler."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from jax import export

from dsd_jax.errors import UserError

_CUSTOM_CALL = re.compile(r"stablehlo\.custom_call @([\w.$]+)")


class Lowered(NamedTuple):
    """A function as a program for CUDA, before the GPU's compiler sees it.

    Attributes:
        inputs, outputs: their shapes and dtypes, in the order of the flattened trees.
        custom_calls: the kernels of jaxlib's CUDA plugin that it calls by name, sorted.
        devices: how many it is partitioned over.
        size: bytes of the stored program.
    """

    inputs: tuple[jax.ShapeDtypeStruct, ...]
    outputs: tuple[jax.ShapeDtypeStruct, ...]
    custom_calls: tuple[str, ...]
    devices: int
    size: int


def lower_for_cuda(function: Callable, *args: Any) -> Lowered:
    """Lower for CUDA, store in the form that later versions can read, and read it back.

    Args:
        function: jitted.
        args: its arguments, arrays as ShapeDtypeStructs; with a NamedSharding it has to be on an
            AbstractMesh, for devices of a mesh are those of some other platform.

    Raises:
        UserError: something in the function has no lowering for CUDA, or calls a kernel that is not
            promised to stay.
    """
    try:
        exported = export.export(function, platforms=["cuda"])(*args)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].removesuffix(".")
        raise UserError(f"this step cannot be lowered for an NVIDIA GPU: {reason}.") from error
    text = exported.mlir_module()  # parsed anew from the stored form
    return Lowered(
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.in_avals),
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.out_avals),
        tuple(sorted(set(_CUSTOM_CALL.findall(text)))),
        exported.nr_devices,
        len(exported.mlir_module_serialized),
    )
