"""`report.json`, `report.md` and `report.html` of a run."""

import json
import os
from collections.abc import Mapping, Sequence

import numpy as np
from etils import epath

from dsd_jax.io.storage import write_file
from dsd_jax.report.html_page import page
from dsd_jax.report.markdown_table import format_markdown
from dsd_jax.report.report_rows import (
    COMPARISON_FIELDS,
    OPTIONAL_ROW_FIELDS,
    ROW_FIELDS,
    Decision,
    Row,
)


def write_report(
    workdir: str | os.PathLike,
    header: Mapping[str, object],
    rows: Sequence[Row],
    decisions: Sequence[Decision] = (),
    comparisons: Sequence[Row] = (),
) -> epath.Path:
    """Write `report_files` into a folder, over what is there; return the page's path."""
    for name, content in report_files(header, rows, decisions, comparisons).items():
        write_file(epath.Path(workdir) / name, content)
    return epath.Path(workdir) / "report.html"


def report_files(
    header: Mapping[str, object],
    rows: Sequence[Row],
    decisions: Sequence[Decision] = (),
    comparisons: Sequence[Row] = (),
) -> dict[str, str]:
    """Return the content of `report.json`, `report.md` and `report.html`, by these names.

    `header` holds "benchmark", "weights", "seed", "seconds", "device" and "versions" (a dict) and
    what else the run wants to tell. Raises ValueError for rows with other fields than `ROW_FIELDS`
    and for numbers that are not finite: these would be bugs, not results.
    """
    results = [
        plain(row, [*ROW_FIELDS, *(name for name in OPTIONAL_ROW_FIELDS if name in row)])
        for row in rows
    ]
    report = {**header, "results": results}
    if comparisons:
        report["comparisons"] = [plain(row, COMPARISON_FIELDS) for row in comparisons]
    return {
        "report.json": json.dumps(report, indent=1, allow_nan=False) + "\n",
        "report.md": format_markdown(header, rows, comparisons),
        "report.html": page(report, decisions),
    }


def plain(row: Row, fields: Sequence[str]) -> dict[str, object]:
    """The row with Python's own numbers in place of NumPy's, in the order of `fields`."""
    if set(row) != set(fields):
        raise ValueError(f"a row has fields {sorted(row)}; expected {sorted(fields)}")
    values = {name: getattr(row[name], "item", lambda v=row[name]: v)() for name in fields}
    bad = [name for name, v in values.items() if isinstance(v, float) and not np.isfinite(v)]
    if bad:
        raise ValueError(f"{bad[0]} of a row is not finite: {values}")
    return values
