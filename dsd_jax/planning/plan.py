"""What a step takes on a slice, and what follows from it: utilisation, speed, room."""

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax

from dsd_jax.planning.collectives import Collective
from dsd_jax.planning.figures import Figures, Shortage
from dsd_jax.planning.topology import Slice

UTILISATION = 0.4  # of the peak, which large models reach on TPUs; an assumption, not a measurement


class Plan(NamedTuple):
    """One step on one slice.

    Attributes:
        step: what it is, such as "train".
        slice: where.
        batch: per device, in the step's own unit.
        pairs: (picture, caption, timestep)s whose scores a step computes, on all devices together.
        weights: bytes of frozen weights per device.
        least: floating-point operations that the step cannot do without, on all devices together.
        found: by compiling.
    """

    step: str
    slice: Slice
    batch: int
    pairs: int
    weights: int
    least: int
    found: Figures | Shortage


class Traffic(NamedTuple):
    """A step's collectives of one kind, per device."""

    kind: str
    times: int
    bytes: int
    across_hosts: bool | None


class Estimate(NamedTuple):
    """What follows from a plan's arithmetic alone.

    Attributes:
        flops_per_pair: as compiled.
        least_per_pair: at least.
        overhead: the former by the latter; 1 is perfect.
        seconds: of a step, were products all there is, at UTILISATION of the peak.
        pairs_per_second: of the whole slice, likewise.
    """

    flops_per_pair: float
    least_per_pair: float
    overhead: float
    seconds: float
    pairs_per_second: float


def estimate(plan: Plan) -> Estimate | None:
    """None where the step does not fit."""
    if not isinstance(plan.found, Figures):
        return None
    flops = plan.found.flops * len(plan.slice.devices)
    seconds = plan.found.flops / (UTILISATION * plan.slice.chip.tflops * 1e12)
    return Estimate(
        flops / plan.pairs,
        plan.least / plan.pairs,
        flops / plan.least,
        seconds,
        plan.pairs / seconds,
    )


def traffic(collectives: Iterable[Collective]) -> tuple[Traffic, ...]:
    """Collectives by kind and by whether they go from host to host, the most bytes first."""
    sums: dict[tuple[str, bool | None], Traffic] = {}
    for one in collectives:
        key = one.kind, one.across_hosts
        _, times, size, _ = sums.get(key, Traffic(one.kind, 0, 0, None))
        sums[key] = Traffic(one.kind, times + one.times, size + one.total, one.across_hosts)
    return tuple(sorted(sums.values(), key=lambda one: -one.bytes))


def device_bytes(tree: Any) -> int:
    """Bytes per device of a tree of arrays or ShapeDtypeStructs, by their shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        total += math.prod(shape) * leaf.dtype.itemsize
    return total
