"""What a step takes on a slice, and what follows from it: utilisation, speed, room."""

from typing import NamedTuple

from dsd_jax.planning.compilation import GIB, Figures, Shortage
from dsd_jax.planning.topology import Slice

UTILISATION = 0.4  # of the peak, which large models reach on TPUs; an assumption, not a measurement


class Plan(NamedTuple):
    """One stage on one slice.

    Attributes:
        step: what it is, such as "train".
        slice: where.
        size: what a device computes in a call, in words.
        pairs: (picture, caption, timestep)s whose scores a step computes, on all devices together;
            of encoders pictures or captions.
        weights: bytes of frozen weights per device, of all networks.
        beside: bytes of those that the program does not read, which are on the device all the same.
        flops: floating-point operations of products that the step computes, on all devices
            together; 0 where that is not known.
        least: those of them that it cannot do without.
        sent: bytes that a device takes part in sending, whole arrays counted once.
        found: by compiling.
    """

    step: str
    slice: Slice
    size: str
    pairs: int
    weights: int
    beside: int
    flops: int
    least: int
    sent: int
    found: Figures | Shortage

    @property
    def needed(self) -> float:
        """Bytes per device, at least where the program itself does not fit."""
        found = self.found
        return self.beside + (found.peak if isinstance(found, Figures) else found.needed)

    @property
    def fits(self) -> bool:
        """Whether program and weights fit together."""
        return self.found.fits and self.needed <= self.slice.chip.hbm * GIB


class Estimate(NamedTuple):
    """What follows from a plan's arithmetic alone.

    Attributes:
        flops_per_pair: as computed.
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
    """Return None where the step does not fit, or its arithmetic is not known."""
    if not plan.fits or not plan.flops:
        return None
    peak = len(plan.slice.devices) * plan.slice.chip.tflops * 1e12
    seconds = plan.flops / (UTILISATION * peak)
    return Estimate(
        plan.flops / plan.pairs,
        plan.least / plan.pairs,
        plan.flops / plan.least,
        seconds,
        plan.pairs / seconds,
    )
