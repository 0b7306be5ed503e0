"""The files of a report, and its tables as Markdown."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dsd_jax.report.html_page import html_page
from dsd_jax.report.result_rows import (
    COMPARISON_FIELDS,
    OPTIONAL_FIELDS,
    ROW_FIELDS,
    ZERO_SHOT,
    ResultRow,
    SplitTable,
    difference_text,
    short_names,
    split_tables,
)
from dsd_jax.report.run_details import LearningRun, RunDetails
from dsd_jax.report.shown_decision import Decision

_NOTHING = RunDetails()


def report_files(
    header: Mapping[str, Any],
    rows: Sequence[ResultRow],
    decisions: Sequence[Decision] = (),
    comparisons: Sequence[ResultRow] = (),
    *,
    details: RunDetails = _NOTHING,
) -> dict[str, str]:
    """Return the content of `report.json`, `report.md` and `report.html`, by these names.

    Args:
        header: "benchmark", "weights", "seed", "seconds", "device", "versions" (a dict), and
            anything else that the run wants to tell.
        rows: as in `result_rows`.
        decisions: whose images the page shows.
        comparisons: with `COMPARISON_FIELDS`.
        details: names in plain words, how learning went, settings.

    Raises:
        ValueError: a row has other fields, or a number that is not finite: a bug, not a result.
    """
    report = {**header, "results": [_plain(row, ROW_FIELDS) for row in rows]}
    if comparisons:
        report["comparisons"] = [_plain(row, COMPARISON_FIELDS) for row in comparisons]
    if details.learning:
        report["learning"] = [run.to_json() for run in details.learning]
    shown = details.renamed(short_names(row["prompts"] for row in rows))
    return {
        "report.json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "report.md": format_markdown(header, rows, comparisons, shown.learning),
        "report.html": html_page(report, decisions, shown),
    }


def _plain(row: ResultRow, fields: Sequence[str]) -> dict[str, Any]:
    """Return the row with Python's own numbers in place of NumPy's, in the order of `fields`.

    The optional ones that it has come last.
    """
    fields = [*fields, *(name for name in OPTIONAL_FIELDS if name in row)]
    if set(row) != set(fields):
        raise ValueError(f"a row has fields {sorted(row)}; expected {sorted(fields)}")
    values = {name: getattr(row[name], "item", lambda v=row[name]: v)() for name in fields}
    bad = [name for name, v in values.items() if isinstance(v, float) and not np.isfinite(v)]
    if bad:
        raise ValueError(f"{bad[0]} of a row is not finite: {values}")
    return values


def format_markdown(
    header: Mapping[str, Any],
    rows: Sequence[ResultRow],
    comparisons: Sequence[ResultRow] = (),
    learning: Sequence[LearningRun] = (),
) -> str:
    """Return the results as Markdown, to paste into a README or an issue.

    What was run; a table per split, the best of each column bold; what held-out shots decided; the
    paired differences of the means; what methods cost.
    """
    facts = [f"{name} {header[name]}" for name in ("weights", "clip", "seed") if name in header]
    facts += [f"{header['seconds'] / 60:.1f} minutes on {header['device']}"]
    blocks = [f"Benchmark {header['benchmark']}: {', '.join(facts)}."]
    blocks += map(_markdown_block, split_tables(rows))
    if any(run.gains for run in learning):
        blocks.append(_markdown_gains(learning))
    means = [row for row in comparisons if row["kind"] == "mean"]
    if means:
        blocks.append(_markdown_differences(means, short_names(row["prompts"] for row in rows)))
    if header.get("passes"):
        counts = [f"`{method}` {count:,}" for method, count in header["passes"].items()]
        blocks.append(f"Rows that an item sends through the UNet: {', '.join(counts)}.")
    return "\n\n".join(blocks) + "\n"


def _markdown_block(table: SplitTable) -> str:
    """Return the table of one split under the sentence that explains its numbers."""
    grid = [[table.name.replace("-", " "), "prompts", *table.kinds]]
    for line in table.lines:
        cells = [
            (f"**{cell.text}**" if cell.best else cell.text) if cell else "–" for cell in line.cells
        ]
        grid.append([f"`{line.method}`", line.label, *cells])
    return f"{table.caption}; bold is the best of its column.\n\n{_markdown_table(grid)}"


def _markdown_gains(learning: Sequence[LearningRun]) -> str:
    """Return the gains on held-out shots as a table."""
    grid = [["prompts", "draw", "learned", "held-out gain", "step", "verdict"]]
    for run in learning:
        for gain in run.gains:
            verdict = "kept" if gain.kept else "refused"
            step = str(run.kept_step) if run.kept_step and gain.kept else "–"
            grid.append([run.prompts, str(run.seed), gain.what, gain.text, step, verdict])
    return (
        "What was learned, and by how much it lowered the loss on held-out shots; what gains no "
        f"more than its standard error is refused:\n\n{_markdown_table(grid)}"
    )


def _markdown_differences(rows: Sequence[ResultRow], names: Mapping[str | None, str]) -> str:
    """Return the paired differences as a table, with prompts by their short names."""
    grid = [["split", "row", "less", "points", "n"]]
    for row in rows:
        name = f"`{row['method']}` {names.get(row['prompts'], row['prompts'])}"
        other = row["baseline_prompts"]
        baseline = f"`{row['baseline_method']}` {names.get(other, other or ZERO_SHOT)}"
        grid.append([row["split"], name, baseline, difference_text(row), str(row["n"])])
    return f"Paired differences of the means, item by item:\n\n{_markdown_table(grid)}"


def _markdown_table(grid: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table whose first line is its head."""
    lines = [grid[0], ["---"] * len(grid[0]), *grid[1:]]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
