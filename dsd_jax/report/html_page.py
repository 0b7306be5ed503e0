"""`report.html`: one file that needs nothing else, on a phone, a desk or paper, light or dark.

The page is the template `report.html.jinja`; here is what it shows.
"""

import base64
import datetime
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from dsd_jax.report import charts, curve_plots
from dsd_jax.report.result_rows import (
    ZERO_SHOT,
    ResultRow,
    SplitTable,
    share_text,
    short_names,
    split_tables,
    verdict_text,
)
from dsd_jax.report.run_details import RunDetails
from dsd_jax.report.shown_decision import Decision

IMAGE_SIDE = 320  # pixels; larger images are shrunk so that the file stays small
SMALL_SIDE = 128  # up to here images are shown with sharp pixels, and stored without loss


def html_page(report: Mapping[str, Any], decisions: Sequence[Decision], details: RunDetails) -> str:
    """Return the page of a report as it is in `report.json`, with the images of `decisions`."""
    rows = report["results"]
    tables = split_tables(rows)
    mean_charts = [chart for chart in map(charts.mean_chart, tables) if chart.points]
    differences = charts.difference_charts(report.get("comparisons", ()), rows)
    gains = charts.gain_chart(details.learning)
    return _ENVIRONMENT.get_template("report.html.jinja").render(
        report=report,
        details=details,
        tables=tables,
        headlines=[_headline(table, rows) for table in tables if table.means],
        mean_charts=mean_charts,
        mean_axis=_percent_axis(mean_charts, low=0),
        rows_learned=any(row["prompts"] is not None for row in rows),
        difference_charts=differences,
        difference_axis=_percent_axis(differences, low=-100),
        gains=gains,
        gain_axis=charts.axis_around(charts.ends_of([gains])),
        learning_plots=curve_plots.learning_plots(details.learning),
        shots_plots=curve_plots.shots_plots(tables),
        decisions=decisions,
        command=report.get("command", ""),
        date=_date_text(report.get("date", "")),
        facts=[(name, _fact_text(name, report[name])) for name in report if name not in _ELSEWHERE],
        config="\n".join(_setting_lines(report.get("config", {}))),
    )


def _percent_axis(found: Sequence[charts.Chart], *, low: float) -> charts.Axis:
    return charts.axis_around(charts.ends_of(found), least_step=1, low=low, high=100)


def _headline(table: SplitTable, rows: Sequence[ResultRow]) -> dict[str, Any]:
    """Return the best zero-shot row and the best few-shot row of a split, as texts."""
    few_shot = [row for row in table.means if row["prompts"] is not None]
    kept = [row for row in few_shot if verdict_text(row) != "refused"]
    return {
        "name": table.name,
        "zero": _best(table.means, rows, few_shot=False),
        "few": _best(kept, rows, few_shot=True),
        "all_refused": bool(few_shot) and not kept,
    }


def _best(
    means: Sequence[ResultRow], rows: Sequence[ResultRow], *, few_shot: bool
) -> dict[str, Any] | None:
    candidates = [row for row in means if (row["prompts"] is not None) == few_shot]
    if not candidates:
        return None
    best = max(candidates, key=lambda row: row["value"])
    value, error = share_text(best).split(" ", 1)
    names = short_names(row["prompts"] for row in rows)
    name = f"{best['method']}, {names[best['prompts']]}" if few_shot else best["method"]
    return {"value": value, "error": error, "name": name, "count": len(candidates)}


def _date_text(date: str) -> str:
    """Return "28 November 2026, 07:10 UTC" of a date in ISO form; "" of none."""
    if not date:
        return ""
    moment = datetime.datetime.fromisoformat(date)
    return f"{moment.day} {_MONTHS[moment.month - 1]} {moment:%Y, %H:%M} UTC"


def _fact_text(name: str, value: Any) -> str:
    """Return a fact of the run as text."""
    if name == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)


def _setting_lines(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield "learn.lora.rank = 4" of every field, also of those in groups."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from _setting_lines(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name} = {json.dumps(value, ensure_ascii=False)}"


def _data_url(pixels: np.ndarray) -> str:
    """Return an image inside the page, at its own shape and no larger than it is."""
    image, file = Image.fromarray(np.asarray(pixels)), io.BytesIO()
    image.thumbnail((IMAGE_SIDE, IMAGE_SIDE))
    kind = "png" if max(image.size) <= SMALL_SIDE else "jpeg"
    image.save(file, kind, optimize=True, **({} if kind == "png" else {"quality": 88}))
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def _is_small(pixels: np.ndarray) -> bool:
    """Return whether an image has so few pixels that blurring them would hide what it is."""
    return max(np.shape(pixels)[:2]) <= SMALL_SIDE


_MONTHS = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
# What the page shows elsewhere than in its list of facts.
_ELSEWHERE = ("results", "comparisons", "learning", "config", "command", "date")
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("dsd_jax", "report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_ENVIRONMENT.filters["data_url"] = _data_url
_ENVIRONMENT.tests["small_image"] = _is_small
_ENVIRONMENT.globals["ZERO_SHOT"] = ZERO_SHOT
