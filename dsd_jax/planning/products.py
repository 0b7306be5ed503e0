"""The arithmetic of a compiled program's products; XLA's own count takes every loop for one turn.

On TPU all products are convolutions, batches and contracted axes being spatial ones.
"""

import re
from math import prod

from dsd_jax.planning.convolution import Side, multiply_adds
from dsd_jax.planning.hlo import Instruction, Program, Runs, array_shape

_PAIR = re.compile(r"(-?\d+)_(-?\d+)")


def executed_flops(program: Program, runs: Runs) -> int:
    """2 per multiply-add of all products of a run, per device."""
    total = 0
    for name, instructions in program.computations.items():
        for each in instructions if runs.times[name] else ():
            if each.opcode in ("dot", "convolution"):
                count = _dot if each.opcode == "dot" else _convolution
                total += 2 * count(program, each) * runs.times[name]
    return total


def _dot(program: Program, dot: Instruction) -> int:
    left = array_shape(program.shapes[dot.operands()[0]])
    axes = (dot.attribute("lhs_contracting_dims") or "{}").strip("{}")
    inner = prod(left[int(axis)] for axis in axes.split(",") if axis)
    return prod(array_shape(dot.shape)) * inner


def _convolution(program: Program, convolution: Instruction) -> int:
    """By its labels, such as b01f_01io->b01f, and window={size=3x3 pad=1_1x1_1 ...}."""
    left, right, output = re.split("_|->", convolution.attribute("dim_labels"))
    names = convolution.operands()
    picture = dict(zip(left, array_shape(program.shapes[names[0]]), strict=True))
    kernel = dict(zip(right, array_shape(program.shapes[names[1]]), strict=True))
    result = dict(zip(output, array_shape(convolution.shape), strict=True))
    window = (convolution.attribute("window") or "{}").strip("{}").split()
    options = dict(option.split("=") for option in window)
    space = sorted(set(output) - set("bf"))
    sides = [
        Side(
            picture[axis],
            kernel[axis],
            result[axis],
            int(_option(options, "stride", number, "1")),
            int(_PAIR.match(_option(options, "pad", number, "0_0"))[1]),
            int(_option(options, "lhs_dilate", number, "1")),
            int(_option(options, "rhs_dilate", number, "1")),
        )
        for number, axis in enumerate(space)
    ]
    return multiply_adds(result["b"], kernel["i"], result["f"], sides)


def _option(options: dict[str, str], name: str, number: int, default: str) -> str:
    return options[name].split("x")[number] if name in options else default
