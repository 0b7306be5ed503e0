"""The plan of a stage on a slice: memory, arithmetic, speed; as a table, as Markdown, as JSON."""

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from dsd_jax.planning.compilation import GIB, CompiledStats, Shortage
from dsd_jax.planning.topology import Slice

UTILISATION = 0.4  # of the peak, which large models reach on TPUs; an assumption, not a measurement
NONE = "–"
_SPEED = f"pairs/s at {100 * UTILISATION:.0f} % of peak"
_COLUMNS = ("stage", "slice", "devices", "per device and call", "weights per device")
_COLUMNS += ("memory per device", "FLOPs per pair", "least FLOPs per pair", "sent per call", _SPEED)


class Estimate(NamedTuple):
    """The speed that follows from a plan's arithmetic alone.

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


class StagePlan(NamedTuple):
    """A plan of one stage on one slice.

    Attributes:
        stage: its name, such as "train".
        slice: where.
        size: what a device computes in a call, in words.
        pairs: (image, caption, timestep)s whose scores a step computes, on all devices together;
            of encoders images or captions.
        weights: bytes of frozen params per device, of all networks.
        beside: bytes of those that the program does not read, which are on the device all the same.
        flops: floating-point operations of products that the step computes, on all devices
            together; 0 where that is not known.
        least: those of them that it cannot do without.
        sent: bytes that a device takes part in sending, whole arrays counted once.
        compiled: what the compiler said.
    """

    stage: str
    slice: Slice
    size: str
    pairs: int
    weights: int
    beside: int
    flops: int
    least: int
    sent: int
    compiled: CompiledStats | Shortage

    @property
    def needed(self) -> float:
        """The bytes per device; a lower bound where the program itself does not fit."""
        if isinstance(self.compiled, Shortage):
            return self.beside + self.compiled.needed
        return self.beside + self.compiled.peak

    @property
    def fits(self) -> bool:
        """Return whether the program fits together with all params."""
        return isinstance(self.compiled, CompiledStats) and self.needed <= self.available

    @property
    def available(self) -> float:
        """The bytes per device that there are."""
        return self.slice.chip.hbm * GIB

    @property
    def memory(self) -> str:
        """The memory that is needed and that there is, such as "2.76 of 15.75 GiB"."""
        return f"{self.needed / GIB:.2f} of {self.available / GIB:.2f} GiB"

    @property
    def estimate(self) -> Estimate | None:
        """The speed; None where the step does not fit, or its arithmetic is not known."""
        if not self.fits or not self.flops:
            return None
        peak = len(self.slice.devices) * self.slice.chip.tflops * 1e12
        seconds = self.flops / (UTILISATION * peak)
        return Estimate(
            self.flops / self.pairs,
            self.least / self.pairs,
            self.flops / self.least,
            seconds,
            self.pairs / seconds,
        )


def format_table(plans: Sequence[StagePlan]) -> str:
    """Return a column for each plan, a line for each quantity; a dash where a plan lacks it."""
    texts = [_texts(plan) for plan in plans]
    labels = list(dict.fromkeys(label for column in texts for label in column))
    columns = [labels, *([column.get(label, NONE) for label in labels] for column in texts)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    return "\n".join(lines) + "\n"


def format_markdown(plans: Sequence[StagePlan]) -> str:
    """Return a table with a row for each plan, for a README."""
    rows = [list(_COLUMNS), ["---"] * len(_COLUMNS)]
    rows += [[_texts(plan).get(label, NONE) for label in _COLUMNS] for plan in plans]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def format_json(plans: Sequence[StagePlan]) -> str:
    """Return a list with all numbers of every plan: bytes, floating-point operations, seconds."""
    return json.dumps([_to_dict(plan) for plan in plans], indent=1) + "\n"


def largest(plans: Sequence[StagePlan]) -> str:
    """Return a sentence per slice: which stage needs the most memory, and whether all fit."""
    lines = []
    for name in dict.fromkeys(plan.slice.name for plan in plans):
        slice_plans = [plan for plan in plans if plan.slice.name == name]
        most = max(slice_plans, key=lambda plan: plan.needed)
        too_large = [plan.stage for plan in slice_plans if not plan.fits]
        fits = f"{', '.join(too_large)} does not fit" if too_large else "every stage fits"
        lines.append(f"{name}: {fits}; the largest is {most.stage}, {most.memory} per device.")
    return "\n".join(lines)


def _to_dict(plan: StagePlan) -> dict[str, Any]:
    """Return all numbers of a plan, with nothing but what JSON has."""
    estimate = plan.estimate
    return {
        "stage": plan.stage,
        "topology": plan.slice.name,
        "devices": len(plan.slice.devices),
        "hosts": plan.slice.hosts,
        "hbm": int(plan.available),
        "peak_flops_per_second": plan.slice.chip.tflops * 1e12,
        "size": plan.size,
        "pairs": plan.pairs,
        "weights": plan.weights,
        "beside": plan.beside,
        "memory": int(plan.needed),
        "fits": plan.fits,
        "flops": plan.flops,
        "least_flops": plan.least,
        "sent": plan.sent,
        **plan.compiled._asdict(),
        "estimate": estimate and {"utilisation": UTILISATION, **estimate._asdict()},
    }


def _texts(plan: StagePlan) -> dict[str, str]:
    """Return {label: text} of every quantity."""
    hosts, estimate = plan.slice.hosts, plan.estimate
    texts = {
        "stage": plan.stage,
        "slice": plan.slice.name,
        "devices": f"{len(plan.slice.devices)} on {hosts} host{'s' if hosts > 1 else ''}",
        "peak of a device": f"{plan.slice.chip.tflops:g} TFLOP/s",
        "per device and call": plan.size,
        "pairs per call": str(plan.pairs),
        "weights per device": f"{plan.weights / GIB:.2f} GiB",
        "memory per device": plan.memory,
        "fits": "yes" if plan.fits else "no",
    }
    if isinstance(plan.compiled, CompiledStats):
        texts["temporaries per device"] = f"{plan.compiled.temporaries / GIB:.2f} GiB"
    if estimate:
        texts["FLOPs per pair"] = f"{estimate.flops_per_pair / 1e12:.3g} TFLOP"
        texts["least FLOPs per pair"] = f"{estimate.least_per_pair / 1e12:.3g} TFLOP"
        texts["FLOPs by the least"] = f"{estimate.overhead:.2f}"
        speed = estimate.pairs_per_second
        texts[_SPEED] = f"{float(f'{speed:.3g}'):,.{0 if speed >= 100 else 2}f}"
    return texts | {"sent per call": decimal(plan.sent)}


def decimal(size: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"
