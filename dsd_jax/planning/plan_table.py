"""Plans as an aligned table, as JSON, and as rows of Markdown."""

import json
from collections.abc import Sequence
from typing import Any

from dsd_jax.planning.compilation import GIB, Figures
from dsd_jax.planning.slice_plan import UTILISATION, Plan, estimate

NONE = "–"
_SPEED = f"pairs/s at {100 * UTILISATION:.0f} % of peak"
_COLUMNS = ("stage", "slice", "devices", "per device and call", "weights per device")
_COLUMNS += ("memory per device", "TFLOP per pair", "least", "sent per call", _SPEED)


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
    guess = estimate(plan)
    return {
        "stage": plan.step,
        "topology": plan.slice.name,
        "devices": len(plan.slice.devices),
        "hosts": plan.slice.hosts,
        "hbm": int(plan.slice.chip.hbm * GIB),
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
        **plan.found._asdict(),
        "estimate": guess and {"utilisation": UTILISATION, **guess._asdict()},
    }


def _texts(plan: Plan) -> dict[str, str]:
    """{label: text} of every quantity."""
    found, hosts, guess = plan.found, plan.slice.hosts, estimate(plan)
    texts = {
        "stage": plan.step,
        "slice": plan.slice.name,
        "devices": f"{len(plan.slice.devices)} on {hosts} host{'s' if hosts > 1 else ''}",
        "peak of a device": f"{plan.slice.chip.tflops:g} TFLOP/s",
        "per device and call": plan.size,
        "pairs per call": str(plan.pairs),
        "weights per device": gib(plan.weights),
        "memory per device": _memory(plan),
        "fits": "yes" if plan.fits else "no",
    }
    if isinstance(found, Figures):
        texts["temporaries per device"] = gib(found.temporaries)
    if guess:
        texts["FLOPs per pair"] = tflop(guess.flops_per_pair)
        texts["least FLOPs per pair"] = tflop(guess.least_per_pair)
        texts["FLOPs by the least"] = f"{guess.overhead:.2f}"
        texts[_SPEED] = rounded(guess.pairs_per_second)
    return texts | {"sent per call": decimal(plan.sent)}


def _row(plan: Plan) -> list[str]:
    guess = estimate(plan)
    return [
        plan.step,
        f"`{plan.slice.name}`",
        str(len(plan.slice.devices)),
        plan.size,
        gib(plan.weights),
        _memory(plan),
        f"{guess.flops_per_pair / 1e12:.3g}" if guess else NONE,
        f"{guess.least_per_pair / 1e12:.3g}" if guess else NONE,
        decimal(plan.sent),
        rounded(guess.pairs_per_second) if guess else NONE,
    ]


def _memory(plan: Plan) -> str:
    return f"{plan.needed / GIB:.2f} of {plan.slice.chip.hbm:.2f} GiB"


def largest(plans: Sequence[Plan]) -> str:
    """A sentence for each slice: which stage needs the most memory, and whether all fit."""
    lines = []
    for name in dict.fromkeys(plan.slice.name for plan in plans):
        here = [plan for plan in plans if plan.slice.name == name]
        most = max(here, key=lambda plan: plan.needed)
        missing = [plan.step for plan in here if not plan.fits]
        fits = f"{', '.join(missing)} does not fit" if missing else "every stage fits"
        lines.append(f"{name}: {fits}; the largest is {most.step}, {_memory(most)} per device.")
    return "\n".join(lines)


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
