"""TPU slices: their chips, and their devices as a compiler knows them without access to one."""

import importlib.util
import math
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from dsd_jax.errors import UserError

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
# Off the search path: JAX complains about a TPU's compiler where there is no TPU.
COMPILER = Path(sys.prefix) / "planning"
_SHAPE = re.compile(r"(\w+):(\d+(?:x\d+)*)", re.ASCII)
# libtpu asks the metadata server of Google's cloud who it is, and complains where there is none,
# unless these say it; they say nothing about the slice that is compiled for.
_ANSWERS = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # compiling shares no device with another process
}


class Chip(NamedTuple):
    """A device of a family of TPUs; it is a chip, on v4 half of one.

    Attributes:
        family: as in a topology's name.
        hbm: GiB that a program may use, in the compiler's own words "available HBM".
        tflops: peak of bfloat16 products, 1e12 per second.
        dims: of the shape of a slice.
        longest: the longest side of a slice.
        example: a slice.
    """

    family: str
    hbm: float
    tflops: float
    dims: int
    longest: int
    example: str


# HBM: what libtpu 0.0.42's compiler says when a program needs more. Peaks: "peak compute per chip
# (bf16)" of https://cloud.google.com/tpu/docs/v5e, .../v5p, .../v6e and .../v4, which are 197, 459,
# 918 and 275; the compiler takes each v4 chip for two devices.
CHIPS: Mapping[str, Chip] = {
    "v5e": Chip("v5e", 15.75, 197.0, 2, 16, "v5e:2x4"),
    "v5p": Chip("v5p", 95.74, 459.0, 3, 24, "v5p:2x2x2"),
    "v6e": Chip("v6e", 31.25, 918.0, 2, 16, "v6e:4x4"),
    "v4": Chip("v4", 15.25, 275.0 / 2, 3, 16, "v4:2x2x2"),
}
_EXAMPLES = ", ".join(chip.example for chip in CHIPS.values())


class Slice(NamedTuple):
    """A TPU slice.

    Attributes:
        name: such as "v5e:2x4".
        chip: what each device has.
        devices: for `jax.make_mesh(..., devices=devices)`; nothing runs on them.
    """

    name: str
    chip: Chip
    devices: tuple[Any, ...]

    @property
    def hosts(self) -> int:
        """The number of processes that drive it."""
        return len({device.process_index for device in self.devices})


def find_compiler() -> None:
    """Add a compiler installed beside the packages to the path; call it before JAX is imported."""
    if str(COMPILER) not in sys.path:
        sys.path.append(str(COMPILER))


def make_slice(name: str) -> Slice:
    """Return the slice `name`, such as "v5e:16x16", for the compiler alone.

    Sets environment variables of libtpu that aren't set. Where JAX has not been used yet it is told
    to run on the CPU: a process that plans needs no TPU, and must not keep one from others.

    Raises:
        UserError: the name is not that of a slice, or libtpu is missing.
    """
    chip, shape = _parse(name)
    if importlib.util.find_spec("libtpu") is None:
        requirement = next(x for x in REQUIREMENTS.read_text().splitlines() if x[0] != "#")
        raise UserError(
            "compiling for a TPU needs its compiler, libtpu, which is not installed; run "
            f"{sys.executable} -m pip install --target {COMPILER} '{requirement}' (there it is "
            "out of the way of all other commands)."
        )
    for variable, value in _ANSWERS.items():
        os.environ.setdefault(variable, value)
    jax.config.update("jax_platforms", "cpu")
    try:
        # One chip is no multiple of a host's usual four, and has to say so.
        bounds = {"chips_per_host_bounds": (1, 1, 1)} if math.prod(shape) == 1 else {}
        topology = topologies.get_topology_desc(name, "tpu", **bounds)
    except Exception as error:  # whatever this version of libtpu raises
        reason = str(error).strip().split("\n")[0].removesuffix(".")
        raise UserError(
            f"--topology={name}: the compiler knows no such slice ({reason}); examples are "
            f"{_EXAMPLES}."
        ) from error
    return Slice(name, chip, tuple(topology.devices))


def _parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    match = _SHAPE.fullmatch(name)
    if match is None:
        raise UserError(f"--topology={name} is not FAMILY:SHAPE; expected such as {_EXAMPLES}.")
    family, sides = match.groups()
    if family not in CHIPS:
        raise UserError(
            f"--topology={name}: the family '{family}' is unknown; expected {', '.join(CHIPS)}, as "
            f"in {_EXAMPLES}."
        )
    chip, shape = CHIPS[family], tuple(int(side) for side in sides.split("x"))
    if len(shape) != chip.dims or not all(1 <= side <= chip.longest for side in shape):
        raise UserError(
            f"--topology={name}: a slice of {family} has {chip.dims} sides of 1 to {chip.longest} "
            f"chips, such as {chip.example}."
        )
    return chip, shape
