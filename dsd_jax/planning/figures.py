"""A function compiled for devices that are not there, and the figures of the compiled program."""

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding

from dsd_jax.planning.collectives import Collective, read_collectives
from dsd_jax.planning.hlo import count_runs, read_program
from dsd_jax.planning.products import executed_flops

GIB = 2**30
# Compiles sooner. Of Stable Diffusion 2.1's training step, one item per v5e, the peak came out 1 %
# higher (4.03 against 3.99 GB) and the products the same, which is the safe side.
QUICK: Mapping[str, Any] = MappingProxyType(
    {"exec_time_optimization_effort": -1.0, "memory_fitting_effort": -1.0}
)
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = r"([\d.]+)([KMGT]?)i?B?"
# The compiler's two ways of saying it: of all that a program needs, and of one kind of buffers.
_SHORTAGES = (
    re.compile(rf"Used {_SIZE} of {_SIZE} hbm"),
    re.compile(rf"required for [^(]{{0,80}}\({_SIZE}\) exceeds available HBM \({_SIZE}\)"),
)


class Figures(NamedTuple):
    """What one run of a compiled program takes, per device.

    Attributes:
        arguments, outputs: bytes.
        aliased: bytes of outputs that take the place of donated arguments.
        temporaries: bytes of what is computed on the way, where it is largest.
        code: bytes of the program.
        peak: bytes at the worst moment; this is what the compiler holds against the memory there
            is. What it places beside each other can be less than the sum of the others.
        flops: floating-point operations of products, loops counted turn by turn.
        accessed: bytes read and written in XLA's estimate, which takes loops for one turn.
        collectives: the communication, the most bytes first.
        unknown_loops: loops whose length could not be read, taken for one turn in flops and times.
    """

    arguments: int
    outputs: int
    aliased: int
    temporaries: int
    code: int
    peak: int
    flops: int
    accessed: float
    collectives: tuple[Collective, ...]
    unknown_loops: int

    @property
    def fits(self) -> bool:
        """It was compiled, so it does."""
        return True


class Shortage(NamedTuple):
    """A program that needs more memory per device than there is.

    Attributes:
        needed: bytes; of the whole program, or as much as the compiler found before it gave up.
        available: bytes.
    """

    needed: float
    available: float

    @property
    def fits(self) -> bool:
        """It does not."""
        return False

    def __str__(self) -> str:
        """One line."""
        return (
            f"does not fit: needs {self.needed / GIB:.2f} of {self.available / GIB:.2f} GiB per "
            "device"
        )


def compile_figures(
    function: Callable, *args: Any, options: Mapping[str, Any] | None = None
) -> Figures | Shortage:
    """Compile, and read what there is to read.

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
    return read_figures(compiled, _hosts(args))


def _hosts(args: Any) -> list[int]:
    """The host of each device of the mesh that the arguments are on."""
    for leaf in jax.tree.leaves(args):
        sharding = getattr(leaf, "sharding", None)
        if isinstance(sharding, NamedSharding):
            return [device.process_index for device in sharding.mesh.devices.flat]
    return [0]


def read_figures(compiled: Any, hosts: Sequence[int]) -> Figures:
    """The figures of a `jax.stages.Compiled`.

    Args:
        compiled: for any platform.
        hosts: of each device, in the program's order.
    """
    program = read_program(compiled.as_text())
    runs = count_runs(program)
    memory = compiled.memory_analysis()
    return Figures(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.alias_size_in_bytes,
        memory.temp_size_in_bytes,
        memory.generated_code_size_in_bytes,
        memory.peak_memory_in_bytes,
        executed_flops(program, runs),
        compiled.cost_analysis().get("bytes accessed", 0.0),
        read_collectives(program, runs, hosts),
        runs.unknown_loops,
    )


def read_shortage(message: str) -> Shortage | None:
    """What a compiler's RESOURCE_EXHAUSTED says of memory, None of any other message."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in _SHORTAGES:
        match = pattern.search(message)
        if match:
            needed, unit, available, other = match.groups()
            return Shortage(float(needed) * _UNITS[unit], float(available) * _UNITS[other])
    return None
