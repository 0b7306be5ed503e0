"""How many multiply-adds a convolution takes: positions in the padding cost nothing."""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import numpy as np


class Side(NamedTuple):
    """One spatial axis of a convolution."""

    input: int
    kernel: int
    output: int
    stride: int = 1
    pad: int = 0  # before the first element
    input_dilation: int = 1
    kernel_dilation: int = 1


def touches(side: Side) -> int:
    """How many (output, kernel) positions of one axis meet an element of the input."""
    outputs = np.arange(side.output)[:, None] * side.stride
    at = outputs + np.arange(side.kernel) * side.kernel_dilation - side.pad
    inside = (at >= 0) & (at <= (side.input - 1) * side.input_dilation)
    return int(np.count_nonzero(inside & (at % side.input_dilation == 0)))


def multiply_adds(rows: int, inputs: int, outputs: int, sides: Sequence[Side]) -> int:
    """Of a convolution of `rows` pictures from `inputs` channels (per group) to `outputs`."""
    return rows * inputs * outputs * prod(touches(side) for side in sides)
