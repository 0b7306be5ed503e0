"""Plans as an aligned table, as JSON, and as rows of Markdown."""

import json
from collections.abc import Sequence
from typing import Any

from dsd_jax.planning.figures import GIB, Figures
from dsd_jax.planning.plan import UTILISATION, Plan, estimate, traffic

NONE = "–"
_SPEED = f"pairs/s at {100 * UTILISATION:.0f} % of peak"
_COLUMNS = ("step", "slice", "devices", "batch per device", "weights per device")
_COLUMNS += ("memory per device", "TFLOP per pair", "least", "sent per step", _SPEED)


def format_table(plans: Sequence[Plan]) -> str:
    """A column for each plan, a line for each quantity; a dash where a plan lacks it."""
    texts = [_texts(plan) for plan in plans]
    labels = list(dict.fromkeys(label for column in texts for label in column))
    columns = [labels, *([column.get(label, NONE) for label in labels] for column in texts)]
    widths = [max(map(len, column)) for column in columns]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip()
        for cells in zip(*columns, strict=True)
    ]
    return "\n".join(lines) + "\n"


def format_markdown(plans: Sequence[Plan]) -> str:
    """A table with a row for each plan, for a README."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_row, plans)]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def format_json(plans: Sequence[Plan]) -> str:
    """A list with all numbers of every plan: bytes, floating-point operations, seconds."""
    return json.dumps([to_dict(plan) for plan in plans], indent=1) + "\n"


def to_dict(plan: Plan) -> dict[str, Any]:
    """All numbers of a plan, with nothing but what JSON has."""
    found, guess = plan.found, estimate(plan)
    fields = found._asdict()
    if isinstance(found, Figures):
        fields["collectives"] = [one._asdict() for one in found.collectives]
    return {
        "step": plan.step,
        "topology": plan.slice.name,
        "devices": len(plan.slice.devices),
        "hosts": plan.slice.hosts,
        "hbm": int(plan.slice.chip.hbm * GIB),
        "peak_flops_per_second": plan.slice.chip.tflops * 1e12,
        "batch": plan.batch,
        "pairs": plan.pairs,
        "weights": plan.weights,
        "least_flops": plan.least,
        "fits": found.fits,
        **fields,
        "estimate": guess and {"utilisation": UTILISATION, **guess._asdict()},
    }


def _texts(plan: Plan) -> dict[str, str]:
    """{label: text} of every quantity; those that only a program that fits has come last."""
    found, hosts = plan.found, plan.slice.hosts
    texts = {
        "step": plan.step,
        "slice": plan.slice.name,
        "devices": f"{len(plan.slice.devices)} on {hosts} host{'s' if hosts > 1 else ''}",
        "peak of a device": f"{plan.slice.chip.tflops:g} TFLOP/s",
        "batch per device": str(plan.batch),
        "pairs per step": str(plan.pairs),
        "least FLOPs per pair": tflop(plan.least / plan.pairs),
        "weights per device": gib(plan.weights),
        "memory per device": _peak(plan),
        "fits": "yes" if found.fits else "no",
    }
    return texts | _texts_of(plan, found) if isinstance(found, Figures) else texts


def _texts_of(plan: Plan, found: Figures) -> dict[str, str]:
    guess, sent = estimate(plan), traffic(found.collectives)
    between = {True: " between hosts", False: " within a host", None: ", devices unknown"}
    return {
        "temporaries per device": gib(found.temporaries),
        "FLOPs per device": tflop(found.flops),
        "FLOPs per pair": tflop(guess.flops_per_pair),
        "FLOPs by the least": f"{guess.overhead:.2f}",
        _SPEED: rounded(guess.pairs_per_second),
        "loops of unknown length": str(found.unknown_loops),
        "sent per step": decimal(sum(one.bytes for one in sent)),
        **{
            f"  {one.kind}{between[one.across_hosts]}": f"{decimal(one.bytes)} in {one.times}"
            for one in sent
        },
    }


def _row(plan: Plan) -> list[str]:
    found, guess = plan.found, estimate(plan)
    known = isinstance(found, Figures)
    return [
        plan.step,
        f"`{plan.slice.name}`",
        str(len(plan.slice.devices)),
        str(plan.batch),
        gib(plan.weights),
        _peak(plan),
        f"{guess.flops_per_pair / 1e12:.3g}" if guess else NONE,
        f"{plan.least / plan.pairs / 1e12:.3g}",
        decimal(sum(one.total for one in found.collectives)) if known else NONE,
        rounded(guess.pairs_per_second) if guess else NONE,
    ]


def _peak(plan: Plan) -> str:
    found, chip = plan.found, plan.slice.chip
    if isinstance(found, Figures):
        return f"{found.peak / GIB:.2f} of {chip.hbm:.2f} GiB"
    return f"{found.needed / GIB:.2f} of {found.available / GIB:.2f} GiB"


def gib(size: float) -> str:
    """Bytes of memory."""
    return f"{size / GIB:.2f} GiB"


def decimal(size: float) -> str:
    """Bytes on their way."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.3g} {name}"
    return f"{size:.0f} B"


def tflop(count: float) -> str:
    """Floating-point operations."""
    return f"{count / 1e12:.3g} TFLOP"


def rounded(count: float) -> str:
    """A count with three digits that mean something, in figures that people read."""
    return f"{float(f'{count:.3g}'):,.{0 if count >= 100 else 2}f}"
