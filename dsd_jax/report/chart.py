"""The charts of `report.html`: rows of dots with error bars in SVG that scales with the page.

Each row is a line of HTML text and an SVG as wide as the page gives it. Positions in it are
percentages, so nothing but the distances changes with the width: text stays readable on a phone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

BAR = 2  # error bars reach this many standard errors to each side: about 95 %


@dataclass(frozen=True)
class Point:
    """One row of a chart, in percent: a dot with an error bar, and its name and numbers as text."""

    group: str
    label: str
    value: float
    stderr: float
    text: str
    filled: bool


@dataclass(frozen=True)
class Axis:
    """The range of a chart in percent, its ticks and the line to compare with (chance, zero)."""

    low: float
    high: float
    step: float
    reference: float

    def at(self, value: float) -> str:
        """Position of a value as an SVG length, kept within the chart."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0), 1):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """Values with a grid line."""
        count = round((self.high - self.low) / self.step)
        return [self.low + i * self.step for i in range(count + 1)]


def axis_around(
    points: Sequence[Point], reference: float, *others: float, limit: float | None = None
) -> Axis:
    """Return an axis that holds all points with their bars and the reference, on round numbers.

    `others` are the references of charts that share the axis.
    """
    ends = [reference, *others]
    for point in points:
        ends += [point.value - BAR * point.stderr, point.value + BAR * point.stderr]
    width = max(ends) - min(ends)
    step = next((s for s in (1, 2, 5, 10) if width / s <= 8), 20)
    low, high = step * (min(ends) // step), -step * (-max(ends) // step)
    if limit is not None:
        high = min(high, limit)
    return Axis(low, max(high, low + step), step, reference)


def chart(points: Sequence[Point], axis: Axis, reference_name: str) -> str:
    """HTML of the whole chart; rows of one group are kept together under its name."""
    rows, group = [], None
    for point in points:
        name = "" if point.group == group else f"<b>{escape(point.group)}</b>"
        group = point.group
        rows.append(
            f'<li class="row{" first" if name else ""}"><span class="name">{name}'
            f"<span>{escape(point.label)}</span></span>{track(point, axis)}"
            f'<span class="number">{escape(point.text)}</span></li>'
        )
    return f'<ul class="chart">{"".join(rows)}{scale(axis, reference_name)}</ul>'


def track(point: Point, axis: Axis) -> str:
    """The line of one point. Hidden from screen readers, who get the numbers as text."""
    low, high = point.value - BAR * point.stderr, point.value + BAR * point.stderr
    kind = "few" if point.filled else "zero"
    return (
        f'<svg class="track {kind}" aria-hidden="true">{grid(axis)}'
        f'<line class="bar" x1="{axis.at(low)}" x2="{axis.at(high)}" y1="50%" y2="50%"/>'
        f'<circle cx="{axis.at(point.value)}" cy="50%" r="5.5"/></svg>'
    )


def grid(axis: Axis) -> str:
    """Vertical lines at the ticks and, dashed, at the reference."""
    lines = [vertical(axis.at(tick), "tick") for tick in axis.ticks]
    return "".join([*lines, vertical(axis.at(axis.reference), "reference")])


def vertical(x: str, kind: str) -> str:
    """One vertical line."""
    return f'<line class="{kind}" x1="{x}" x2="{x}" y1="0" y2="100%"/>'


def scale(axis: Axis, reference_name: str) -> str:
    """The last line of a chart: the numbers of the axis, and what the dashed line is."""
    signed = axis.low < 0
    labels = "".join(
        f'<text x="{axis.at(tick)}" y="14">{f"{tick:+.0f}" if signed and tick else f"{tick:.0f}"}'
        "</text>"
        for tick in axis.ticks
    )
    return (
        '<li class="row scale" aria-hidden="true"><span class="name"></span>'
        f'<svg class="track">{labels}</svg>'
        f'<span class="number">{escape(reference_name)}</span></li>'
    )
