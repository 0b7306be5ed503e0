"""The tables of `report.html`."""

from collections.abc import Sequence
from html import escape

from dsd_jax.report.report_rows import Row, best_values, by_series, kinds_of, percent, series_label
from dsd_jax.report.text_table import table_caption


def table(split: str, rows: Sequence[Row]) -> str:
    """The table of one split, which scrolls sideways by itself where it is too wide."""
    kinds, best = kinds_of(rows), best_values(rows)
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in ("method", "prompts", *kinds))
    lines, previous = [], None
    for (method, prompts), cells in by_series(rows).items():
        first = ' class="first"' if method != previous else ""
        previous = method
        line = "".join(cell(cells.get(kind), best[kind]) for kind in kinds)
        lines.append(
            f'<tr{first}><th scope="row">{escape(method)}</th>'
            f"<td>{escape(series_label(prompts, cells))}</td>{line}</tr>"
        )
    caption = table_caption(rows).removesuffix("; * best of its column")
    return (
        f'<div class="scroll" role="region" aria-label="{escape(split)}" tabindex="0"><table>'
        f"<caption><b>{escape(split)}</b>: {escape(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )


def cell(row: Row | None, best: float) -> str:
    """One number, coloured by its way from chance to 100 %."""
    if row is None:
        return "<td>&ndash;</td>"
    heat = max(0.0, (row["value"] - row["chance"]) / (1 - row["chance"]))
    value, stderr = percent(row).split(" ", 1)
    star = '<span class="star" title="best of its column">&#9733;</span>'
    mark = star if row["value"] == best else ""
    kind = "number mean" if row["kind"] == "mean" else "number"
    return (
        f'<td class="{kind}" style="--heat:{heat:.2f}">{mark}{value} <small>{stderr}</small></td>'
    )
