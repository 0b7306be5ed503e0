"""Programs compiled for TPUs, or lowered for GPUs, on a machine that has neither."""

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, cast

import jax
from jax import export
from jax.stages import Wrapped

from dsd_jax.errors import UserError

GIB = 2**30
# Compiles sooner. Of Stable Diffusion 2.1's training step, one item per v5e, the peak came out 1 %
# higher (4.03 against 3.99 GB, JAX 0.10), which is the safe side. JAX 0.11 has new names for it.
QUICK: Mapping[str, Any] = MappingProxyType(
    {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
    if jax.__version_info__ < (0, 11)
    else {"optimization_level": "O1", "memory_fitting_level": "O1"}
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)i?B?"
# The compiler's two ways of saying it: of all that a program needs, and of one kind of buffers.
_SHORTAGES = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"required for [^(]{{0,80}}\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)
_CUSTOM_CALL = re.compile(r"stablehlo\.custom_call @([\w.$]+)")


class CompiledStats(NamedTuple):
    """The memory that a compiled program takes, in bytes per device.

    Attributes:
        arguments, outputs: of the program.
        aliased: of outputs that take the place of donated arguments.
        temporaries: of intermediate results, where they are largest.
        code: of the program.
        peak: at the worst moment; this is what the compiler compares with the memory that there is.
            What it places beside each other can be less than the sum of the others.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    peak: int


class Shortage(NamedTuple):
    """A program that needs more memory per device than there is.

    Attributes:
        needed: bytes; of the whole program, or as much as the compiler counted before it gave up.
        available: bytes.
    """

    needed: float
    available: float


def compile_stats(
    function: Callable, *args: Any, options: Mapping[str, Any] | None = None
) -> CompiledStats | Shortage:
    """Compile a jitted function, and return the memory that it takes.

    Args:
        function: jitted; what it donates is donated.
        args: its arguments; arrays as ShapeDtypeStructs with a NamedSharding on a mesh of the
            devices, static arguments as they are.
        options: the compiler's, such as QUICK.
    """
    try:
        compiled = function.lower(*args).compile(dict(options or {}))
    except jax.errors.JaxRuntimeError as error:
        shortage = read_shortage(str(error))
        if shortage is None:
            raise
        return shortage
    memory = compiled.memory_analysis()
    return CompiledStats(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        memory.peak_memory_in_bytes,
    )


def read_shortage(message: str) -> Shortage | None:
    """Return the memory that a compiler's RESOURCE_EXHAUSTED names; None for other messages."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in _SHORTAGES:
        match = pattern.search(message)
        if match:
            needed, unit, available, available_unit = match.groups()
            return Shortage(float(needed) * _UNITS[unit], float(available) * _UNITS[available_unit])
    return None


class LoweredProgram(NamedTuple):
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


def lower_for_cuda(function: Callable, *args: Any) -> LoweredProgram:
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
        exported = export.export(cast(Wrapped, function), platforms=["cuda"])(*args)
    except (ValueError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0].split(". ")[0].removesuffix(".")
        raise UserError(f"this step cannot be lowered for an NVIDIA GPU: {reason}.") from error
    text = exported.mlir_module()  # parsed anew from the stored form
    return LoweredProgram(
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.in_avals),
        tuple(jax.ShapeDtypeStruct(aval.shape, aval.dtype) for aval in exported.out_avals),
        tuple(sorted(set(_CUSTOM_CALL.findall(text)))),
        exported.nr_devices,
        len(exported.mlir_module_serialized),
    )
