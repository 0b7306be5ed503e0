"""The communication of a compiled program: what goes between its devices, and how often."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.planning.groups import read_groups
from dsd_jax.planning.hlo import Instruction, Program, Runs, array_bytes

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-broadcast",
    "collective-permute",
    "ragged-all-to-all",
    "reduce-scatter",
)


class Collective(NamedTuple):
    """Communications of one kind and size.

    Attributes:
        kind: such as "all-reduce".
        times: how often a device takes part in a run of the program.
        bytes: of the whole array per group and time: what is gathered, reduced or scattered.
        group: how many devices take part, None where that can't be read.
        across_hosts: whether any group has devices of two hosts, None where that can't be read.
    """

    kind: str
    times: int
    bytes: int
    group: int | None
    across_hosts: bool | None

    @property
    def total(self) -> int:
        """Bytes of a run."""
        return self.times * self.bytes


def read_collectives(program: Program, runs: Runs, hosts: Sequence[int]) -> tuple[Collective, ...]:
    """All collectives of a program, the most bytes first.

    Args:
        program: compiled.
        runs: how often its computations run.
        hosts: the host of each device, in the order of the program's devices.
    """
    counts: Counter[Collective] = Counter()
    seen = set()
    for name, instructions in program.computations.items():
        for each in instructions if runs.times[name] else ():
            kind = each.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            # TPU programs have the start, the wait, and what is computed meanwhile as three fused
            # computations, and the collective in each of them, on one channel.
            channel = each.attribute("channel_id")
            if channel is None or channel not in seen:
                counts[_describe(program, each, kind, hosts)] += runs.times[name]
                seen.add(channel)
    found = [one._replace(times=times) for one, times in counts.items()]
    return tuple(sorted(found, key=lambda one: (-one.total, one)))


def _describe(
    program: Program, instruction: Instruction, kind: str, hosts: Sequence[int]
) -> Collective:
    """One collective with `times` 0."""
    size = sum(array_bytes(program.shapes.get(name, "")) for name in instruction.operands())
    pairs = instruction.attribute("source_target_pairs")
    groups = read_groups(pairs or instruction.attribute("replica_groups"), len(hosts))
    if groups is None:
        return Collective(kind, 0, size, None, None)
    width = groups.shape[1]
    places = np.asarray(hosts)[groups]
    crosses = bool((places != places[:, :1]).any())
    return Collective(kind, 0, size * width if kind == "all-gather" else size, width, crosses)
