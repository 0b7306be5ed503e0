"""Charts of a page: values and where they lie, in percent of the width of a drawing.

The template draws them as SVG by hand: so text stays readable on a phone, where a drawing of fixed
size would shrink it, the colors follow the page's (light, dark, paper), and a chart is a kilobyte.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dsd_jax.report.result_rows import (
    ResultRow,
    SplitTable,
    difference_text,
    share_text,
    short_names,
    verdict_text,
)
from dsd_jax.report.run_details import LearningRun

BAR = 2  # error bars reach this many standard errors to each side: about 95 %
MOST_TICKS = 8


class Point(NamedTuple):
    """A line of a chart: a dot with an error bar, and its name and numbers as text.

    Attributes:
        group: of neighbouring lines, named once.
        label: of the line.
        value: where the dot is.
        ends: of the error bar.
        text: the numbers.
        filled: whether the dot is filled, as those of few-shot rows are.
        verdict: of the held-out shots, in words; "" for none.
    """

    group: str
    label: str
    value: float
    ends: tuple[float, float]
    text: str
    filled: bool
    verdict: str = ""


@dataclass(frozen=True)
class Axis:
    """A range of values, and the distance of its ticks."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> str:
        """Return the position of a value as an SVG length, kept within the chart."""
        return f"{self.percent(value):.2f}%"

    def height(self, value: float) -> str:
        """Return the position of a value on a vertical axis, whose low end is at the bottom."""
        return f"{100 - self.percent(value):.2f}%"

    def percent(self, value: float) -> float:
        """Return the position of a value, 0 to 100, kept within the chart."""
        return 100 * min(max((value - self.low) / (self.high - self.low), 0), 1)

    @property
    def ticks(self) -> list[float]:
        """The values with a grid line."""
        count = round((self.high - self.low) / self.step)
        return [self.low + i * self.step for i in range(count + 1)]

    @property
    def few_ticks(self) -> list[float]:
        """A few of the ticks for a small plot, at equal distances from 0 or from the high end."""
        stride = max(1, round(len(self.ticks) / 4))
        return self.ticks[::stride] if self.low == 0 else self.ticks[::-stride][::-1]

    def is_minor(self, tick: float) -> bool:
        """Return whether narrow screens leave the label of a tick out, which is every other one.

        0 is kept where there are negative values, else the high end.
        """
        anchor = 0.0 if self.low < 0 else self.high
        return len(self.ticks) > 6 and round((tick - anchor) / self.step) % 2 == 1

    def tick_label(self, tick: float) -> str:
        """Return the number at a tick, with a sign where the axis has negative ones."""
        digits = max(0, -math.floor(math.log10(self.step) + 1e-9))
        is_zero = abs(tick) < self.step / 2
        return f"{tick:+.{digits}f}" if self.low < 0 and not is_zero else f"{abs(tick):.{digits}f}"


class Chart(NamedTuple):
    """Points of one split, and the value of the dashed line to compare them with."""

    name: str
    points: list[Point]
    reference: float


def axis_around(
    values: Sequence[float],
    *,
    least_step: float = 0.0,
    low: float = -math.inf,
    high: float = math.inf,
) -> Axis:
    """Return an axis on round numbers that holds the values.

    Args:
        values: that it holds, as far as its limits let it.
        least_step: distance of ticks, at least.
        low: limit below which it never goes, a multiple of every step.
        high: likewise above.
    """
    first, last = max(min(values, default=0.0), low), min(max(values, default=0.0), high)
    if last - first < 1e-12:
        last = first + (least_step or abs(first) / 10 or 1.0)
    step = max(least_step, _round_step((last - first) / MOST_TICKS))
    start = step * math.floor(first / step + 1e-9)
    end = min(max(step * math.ceil(last / step - 1e-9), start + step), high)
    return Axis(max(min(start, end - step), low), end, step)


def _round_step(least: float) -> float:
    """Return the smallest of 1, 2, 5, 10, 20 and so on, or of their tenths, that is not less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least * (1 - 1e-9))


def ends_of(charts: Sequence[Chart]) -> list[float]:
    """Return all that an axis of the charts has to hold."""
    values = [chart.reference for chart in charts]
    return values + [end for chart in charts for point in chart.points for end in point.ends]


def bar_ends(row: ResultRow, name: str) -> tuple[float, float]:
    """Return the ends in percent of a row's error bar around the value called `name`."""
    if "interval" in row:
        low, high = row["interval"]
        return 100 * low, 100 * high
    value, reach = 100 * row[name], 100 * BAR * row["stderr"]
    limit = -100 if name == "difference" else 0
    return max(value - reach, limit), min(value + reach, 100)


def mean_chart(table: SplitTable) -> Chart:
    """Return the means of a split, with the chance of its own metric."""
    points = []
    for line in table.lines:
        for cell in line.cells:
            if cell and cell.row["kind"] == "mean":
                point = Point(
                    group=line.method,
                    label=line.name,
                    value=100 * cell.row["value"],
                    ends=bar_ends(cell.row, "value"),
                    text=f"{share_text(cell.row)} %",
                    filled=line.prompts is not None,
                    verdict=line.verdict,
                )
                points.append(point)
    return Chart(table.name, points, 100 * table.rows[0]["chance"])


def difference_charts(comparisons: Sequence[ResultRow], rows: Sequence[ResultRow]) -> list[Chart]:
    """Return the paired differences of the means, which tell more than two overlapping bars.

    Those of few-shot rows come first. A row whose prompts were refused is its own zero-shot row,
    which is said once.

    Args:
        comparisons: of `report.json`, which has those of the kinds, too.
        rows: of results; they say which prompts were refused, so that a row is its own baseline.
    """
    charts: dict[str, Chart] = {}
    names = short_names(row["prompts"] for row in rows)
    refused = {(row["method"], row["prompts"]) for row in rows if verdict_text(row) == "refused"}
    for row in comparisons:
        own = row["method"] == row["baseline_method"] and row["baseline_prompts"] is None
        same = (row["method"], row["prompts"]) in refused
        if row["kind"] != "mean" or (same and not own):
            continue
        point = Point(
            group=f"{row['method']} {names.get(row['prompts'], row['prompts'])}",
            label="minus {} {}".format(
                row["baseline_method"],
                names.get(row["baseline_prompts"], row["baseline_prompts"] or "zero-shot"),
            ),
            value=100 * row["difference"],
            ends=(0.0, 0.0) if same else bar_ends(row, "difference"),
            text="refused: the same row" if same else difference_text(row),
            filled=row["prompts"] is not None,
        )
        charts.setdefault(row["split"], Chart(row["split"], [], 0.0)).points.append(point)
    for chart in charts.values():
        chart.points.sort(key=lambda point: not point.filled)
    return list(charts.values())


def gain_chart(learning: Sequence[LearningRun]) -> Chart:
    """Return the gains on held-out shots, with the error bars by which they were kept or refused.

    A gain is kept from one standard error on, which is what these bars show.
    """
    several = len({run.seed for run in learning}) > 1
    points = []
    for run in learning:
        for gain in run.gains:
            error = gain.error or 0.0
            point = Point(
                group=run.prompts,
                label=f"{gain.what}, draw {run.seed}" if several else gain.what,
                value=gain.gain,
                ends=(gain.gain - error, gain.gain + error),
                text=gain.text,
                filled=gain.kept,
                verdict="kept" if gain.kept else "refused",
            )
            points.append(point)
    return Chart("Gain on held-out shots", points, 0.0)
