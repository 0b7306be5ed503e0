"""`report.html`: one file that needs nothing else, on a phone or a desk, light or dark."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from html import escape
from pathlib import Path

from dsd_jax.report.chart import Point, axis_around, chart
from dsd_jax.report.gallery import gallery
from dsd_jax.report.html_table import table
from dsd_jax.report.report_rows import (
    Decision,
    Row,
    by_series,
    by_split,
    percent,
    prompts_label,
    series_label,
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def page(report: Mapping[str, object], decisions: Sequence[Decision]) -> str:
    """The whole page for a report as it is in `report.json`, and the decisions to picture."""
    splits = by_split(report["results"])
    sections = [
        heading(report),
        headline(splits),
        means_section(splits),
        comparisons_section(report.get("comparisons", ())),
        tables_section(splits),
        gallery_section(decisions),
        reading_section(),
        run_section(report),
    ]
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    title = f"dsd_jax: {report['benchmark']}"
    return PAGE.format(title=escape(title), style=style, body="\n".join(filter(None, sections)))


def section(name: str, note: str, content: str) -> str:
    """A titled part of the page; `note` and `content` are HTML."""
    note = f'<p class="note">{note}</p>' if note else ""
    return f"<section><h2>{escape(name)}</h2>{note}{content}</section>"


def heading(report: Mapping[str, object]) -> str:
    """Title and what was run on what."""
    return (
        '<header><p class="brand">dsd_jax</p><h1>Does the caption fit the picture?</h1>'
        f"<p>A frozen diffusion model (<b>{escape(str(report['weights']))}</b>) chooses between "
        f"candidates on <b>{escape(str(report['benchmark']))}</b>.</p></header>"
    )


def headline(splits: Mapping[str, Sequence[Row]]) -> str:
    """For each split the best means without and with learned prompts."""
    cards = []
    for split, rows in splits.items():
        means = [row for row in rows if row["kind"] == "mean"]
        zero = [row for row in means if row["prompts"] is None]
        few = [row for row in means if row["prompts"] is not None]
        numbers = headline_number("best zero-shot", zero) + headline_number("best few-shot", few)
        if numbers:
            cards.append(f'<div class="card"><h2>{escape(split)}</h2>{numbers}</div>')
    return f'<div class="headline">{"".join(cards)}</div>' if cards else ""


def headline_number(name: str, rows: Sequence[Row]) -> str:
    """The highest of the rows in large type, or nothing."""
    if not rows:
        return ""
    best = max(rows, key=lambda row: row["value"])
    kind = "zero" if best["prompts"] is None else "few"
    detail = best["method"] if best["prompts"] is None else f"{best['method']}, {best['prompts']}"
    return (
        f'<p class="{kind}"><span>{name}</span><strong>{100 * best["value"]:.1f}<small> % '
        f"&plusmn; {100 * best['stderr']:.1f}</small></strong>"
        f"<span>{escape(detail)}{f' (of {len(rows)} rows)' if len(rows) > 1 else ''}</span></p>"
    )


def means_section(splits: Mapping[str, Sequence[Row]]) -> str:
    """Return charts of the means, all on one scale so that splits can be compared.

    Each has the chance of its own metric.
    """
    charts, chances = {}, {}
    for split, rows in splits.items():
        chances[split] = 100 * rows[0]["chance"]
        charts[split] = [
            Point(
                group=method,
                label=series_label(prompts, cells),
                value=100 * cells["mean"]["value"],
                stderr=100 * cells["mean"]["stderr"],
                text=f"{percent(cells['mean'])} %",
                filled=prompts is not None,
            )
            for (method, prompts), cells in by_series(rows).items()
            if "mean" in cells
        ]
    points = [point for chart_points in charts.values() for point in chart_points]
    if not points:
        return ""
    axis = axis_around(points, *chances.values(), limit=100)
    figures = [
        figure(split, chart(charts[split], replace(axis, reference=chance), "dashed: chance"))
        for split, chance in chances.items()
    ]
    return section(
        "Percent correct, mean over all items",
        '<span class="key zero"></span> zero-shot <span class="key few"></span> few-shot. '
        "Bars reach two standard errors to each side (about 95 %). The dashed line is chance by "
        "the chart's own metric. Kinds count by their numbers of items.",
        "".join(figures),
    )


def figure(name: str, content: str) -> str:
    """A chart with its name."""
    return f"<figure><figcaption>{escape(name)}</figcaption>{content}</figure>"


def comparisons_section(comparisons: Sequence[Row]) -> str:
    """Paired differences of the means, which tell more than two overlapping bars."""
    comparisons = [row for row in comparisons if row["kind"] == "mean"]  # report.json has the rest
    if not comparisons:
        return ""
    points = {}
    for row in comparisons:
        versus = f"{row['baseline_method']} {prompts_label(row['baseline_prompts'])}"
        points.setdefault(row["split"], []).append(
            Point(
                group=f"{row['method']} {prompts_label(row['prompts'])}",
                label=f"minus {versus}",
                value=100 * row["difference"],
                stderr=100 * row["stderr"],
                text=f"{100 * row['difference']:+.1f} \N{PLUS-MINUS SIGN} "
                f"{100 * row['stderr']:.1f}",
                filled=row["prompts"] is not None,
            )
        )
    axis = axis_around([point for group in points.values() for point in group], reference=0)
    charts = {split: chart(group, axis, "dashed: no difference") for split, group in points.items()}
    return section(
        "What learning changes",
        "Differences in percentage points, item by item on the same items, the same noise and, "
        "where both learn, the same draws of shots, so with smaller errors than the two rows have "
        "each. Bars reach two standard errors to each "
        "side; right of the dashed line learning helps.",
        f'<div class="wide">{"".join(figure(*item) for item in charts.items())}</div>',
    )


def tables_section(splits: Mapping[str, Sequence[Row]]) -> str:
    """All numbers."""
    tables = "".join(table(split, rows) for split, rows in splits.items())
    return section(
        "By what is wrong with the other candidate",
        "&#9733; is the best of its column. The stronger the colour, the further above chance.",
        tables,
    )


def gallery_section(decisions: Sequence[Decision]) -> str:
    """Pictures of wrong and right decisions."""
    if not decisions:
        return ""
    return section(
        "Decisions to look at",
        "Each caption with the picture that fits it (left) and the one that does not. The higher "
        "score, outlined, is the model's choice. Examples: how many are right here says nothing; "
        "the tables do.",
        gallery(decisions),
    )


def reading_section() -> str:
    """What the numbers mean and what they do not."""
    return section(
        "How to read this",
        "",
        "<ul>"
        "<li><b>Items.</b> A caption with pictures, or a picture with captions, of which one fits; "
        "the model is right if it scores that one highest. A tie of two counts one half. Text, "
        "image and group scores are Winoground's: both captions, both pictures, all four right."
        "</li>"
        "<li><b>Zero-shot</b> rows use the frozen model alone. <b>Few-shot</b> rows add prompts "
        "learned from as many labelled items as their name says; what gains less than its standard "
        "error on held-out shots is refused, and the row is scored without it. <b>/compat</b> rows "
        "show what the authors' averaging over 16 items does to a number; they are no measure of a "
        "pair.</li>"
        "<li><b>&plusmn;</b> is one standard error: over items, and for few-shot rows also over "
        "the draws of shots and initial values. Values that differ by less than two of them may "
        "well be equal.</li>"
        "<li><b>The best of many rows flatters</b>: the more rows are compared on the same items, "
        "the more luck is in the highest. Trust differences that were planned, or that hold on "
        "both splits.</li>"
        "</ul>",
    )


def run_section(report: Mapping[str, object]) -> str:
    """How the run was made: all of the report that is not a result."""
    facts = []
    for name, value in report.items():
        if name in ("results", "comparisons"):
            continue
        facts.append(f"<dt>{escape(name)}</dt><dd>{escape(show(name, value))}</dd>")
    return section("The run", "", f"<dl>{''.join(facts)}</dl>")


def show(name: str, value: object) -> str:
    """A fact of the run as text."""
    if name == "seconds":
        minutes, seconds = divmod(round(value), 60)
        return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {inner}" for key, inner in value.items())
    return str(value)
