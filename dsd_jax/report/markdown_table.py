"""The results as Markdown, to paste into a README or an issue."""

from collections.abc import Mapping, Sequence

from dsd_jax.report.report_rows import (
    Row,
    best_values,
    by_series,
    by_split,
    kinds_of,
    percent,
    prompts_label,
    series_label,
)
from dsd_jax.report.text_table import table_caption


def format_markdown(
    header: Mapping[str, object], rows: Sequence[Row], comparisons: Sequence[Row] = ()
) -> str:
    """What was run; a table per split, the best of each column bold; then the paired differences
    of the means, and what methods cost.
    """
    blocks = [_heading(header)]
    blocks += [_split(name, some) for name, some in by_split(rows).items()]
    means = [row for row in comparisons if row["kind"] == "mean"]
    if means:
        blocks.append(_differences(means))
    if header.get("passes"):
        blocks.append(_passes(header["passes"]))
    return "\n\n".join(blocks) + "\n"


def _heading(header: Mapping[str, object]) -> str:
    """One line on what was run."""
    facts = [f"{name} {header[name]}" for name in ("weights", "clip", "seed") if name in header]
    facts += [f"{header['seconds'] / 60:.1f} minutes on {header['device']}"]
    return f"Benchmark {header['benchmark']}: {', '.join(facts)}."


def _passes(passes: Mapping[str, int]) -> str:
    """What every method takes."""
    methods = [f"`{method}` {count:,}" for method, count in passes.items()]
    return f"Rows that an item sends through the UNet: {', '.join(methods)}."


def _split(name: str, rows: Sequence[Row]) -> str:
    kinds, best = kinds_of(rows), best_values(rows)
    lines = [[name.replace("-", " "), "prompts", *kinds], ["---"] * (2 + len(kinds))]
    for (method, prompts), cells in by_series(rows).items():
        lines.append([f"`{method}`", series_label(prompts, cells)])
        lines[-1] += [_cell(cells.get(kind), best[kind]) for kind in kinds]
    caption = table_caption(rows).removesuffix("; * best of its column")
    return "\n".join([f"{caption}; bold is the best of its column.", "", *map(_line, lines)])


def _cell(row: Row | None, best: float) -> str:
    if row is None:
        return "–"
    return f"**{percent(row)}**" if row["value"] == best else percent(row)


def _differences(rows: Sequence[Row]) -> str:
    lines = [["split", "row", "less", "points", "n"], ["---"] * 5]
    for row in rows:
        lines.append(
            [
                row["split"],
                f"`{row['method']}` {prompts_label(row['prompts'])}",
                f"`{row['baseline_method']}` {prompts_label(row['baseline_prompts'])}",
                f"{100 * row['difference']:+.1f} ± {100 * row['stderr']:.1f}",
                str(row["n"]),
            ]
        )
    return "\n".join(["Paired differences of the means, item by item:", "", *map(_line, lines)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
