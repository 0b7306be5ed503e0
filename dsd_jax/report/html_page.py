"""`report.html`: one file that needs nothing else, on a phone or a desk, light or dark.

The page is the template `report.html.jinja`; here are the numbers that it shows. Positions in its
charts are percentages of the width that the page gives, so text stays readable on a phone.
"""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jinja2
import numpy as np
from PIL import Image

from dsd_jax.report.result_rows import (
    Decision,
    ResultRow,
    SplitTable,
    difference_text,
    prompts_label,
    split_tables,
)

BAR = 2  # error bars reach this many standard errors to each side: about 95 %
IMAGE_SIDE = 192  # pixels; larger images are shrunk so that the file stays small


class Point(NamedTuple):
    """A line of a chart, in percent: a dot with an error bar, and its name and numbers as text."""

    group: str
    label: str
    value: float
    stderr: float
    text: str
    filled: bool

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of the error bar."""
        return self.value - BAR * self.stderr, self.value + BAR * self.stderr


@dataclass(frozen=True)
class Axis:
    """The range of charts in percent, and the distance of its ticks."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> str:
        """Return the position of a value as an SVG length, kept within the chart."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0), 1):.2f}%"

    @property
    def ticks(self) -> list[float]:
        """The values with a grid line."""
        count = round((self.high - self.low) / self.step)
        return [self.low + i * self.step for i in range(count + 1)]

    def tick_label(self, tick: float) -> str:
        """Return the number at a tick, with a sign where the axis has negative ones."""
        return f"{tick:+.0f}" if self.low < 0 and tick else f"{tick:.0f}"


class Chart(NamedTuple):
    """Points of one split, and the value of the dashed line to compare them with."""

    name: str
    points: list[Point]
    reference: float


def html_page(report: Mapping[str, Any], decisions: Sequence[Decision]) -> str:
    """Return the page of a report as it is in `report.json`, with the images of `decisions`."""
    tables = split_tables(report["results"])
    mean_charts = [_mean_chart(table) for table in tables]
    differences = _difference_charts(report.get("comparisons", ()))
    facts = [(name, value) for name, value in report.items() if name not in _RESULTS]
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        report=report,
        tables=tables,
        mean_charts=mean_charts,
        mean_axis=axis_around(mean_charts, limit=100),
        difference_charts=differences,
        difference_axis=axis_around(differences),
        decisions=decisions,
        facts=[(name, _fact_text(name, value)) for name, value in facts],
    )


def axis_around(charts: Sequence[Chart], limit: float | None = None) -> Axis:
    """Return an axis on round numbers that holds all charts' points, bars and references."""
    ends = [chart.reference for chart in charts] or [0.0]
    ends += [end for chart in charts for point in chart.points for end in point.ends]
    width = max(ends) - min(ends)
    step = next((s for s in (1, 2, 5, 10) if width / s <= 8), 20)
    low, high = step * (min(ends) // step), -step * (-max(ends) // step)
    if limit is not None:
        high = min(high, limit)
    return Axis(low, max(high, low + step), step)


def _mean_chart(table: SplitTable) -> Chart:
    """Return the means of a split, with the chance of its own metric."""
    points = []
    for line in table.lines:
        for cell in line.cells:
            if cell and cell.row["kind"] == "mean":
                value, stderr = 100 * cell.row["value"], 100 * cell.row["stderr"]
                few_shot = line.prompts is not None
                text = f"{cell.text} %"
                points.append(Point(line.method, line.label, value, stderr, text, few_shot))
    return Chart(table.name, points, 100 * table.rows[0]["chance"])


def _difference_charts(comparisons: Sequence[ResultRow]) -> list[Chart]:
    """Return the paired differences of the means, which tell more than two overlapping bars."""
    charts: dict[str, Chart] = {}
    for row in comparisons:
        if row["kind"] == "mean":  # report.json has the others
            point = Point(
                group=f"{row['method']} {prompts_label(row['prompts'])}",
                label=f"minus {row['baseline_method']} {prompts_label(row['baseline_prompts'])}",
                value=100 * row["difference"],
                stderr=100 * row["stderr"],
                text=difference_text(row),
                filled=row["prompts"] is not None,
            )
            charts.setdefault(row["split"], Chart(row["split"], [], 0.0)).points.append(point)
    return list(charts.values())


def _fact_text(name: str, value: Any) -> str:
    """Return a fact of the run as text."""
    if name == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)


def _data_url(pixels: np.ndarray) -> str:
    """Return an image as a PNG inside the page."""
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


_RESULTS = ("results", "comparisons")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("dsd_jax", "report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["data_url"] = _data_url
