"""Results as text for a terminal: a table that fits its width, and the best rows."""

import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

from dsd_jax.report.result_rows import Cell, ResultRow, SplitTable, split_tables

WIDTH = 80  # columns
BEST = 3  # rows that are named at the end
REFUSED = "\N{DAGGER}"


class _Form(NamedTuple):
    """A form of the columns of kinds.

    cell: from a cell of a kind to its text; None where kinds have no column.
    note: what is not shown.
    gap: between columns.
    """

    cell: Callable[[Cell], str] | None
    note: str
    gap: str = "  "


# From the widest to the narrowest.
_FORMS = (
    _Form(lambda cell: cell.text, ""),
    _Form(lambda cell: f"{100 * cell.row['value']:.1f}", "the errors of the kinds", " "),
    _Form(None, "the kinds"),
)


def print_table(rows: Sequence[ResultRow], width: int = WIDTH) -> None:
    """Print `format_table(rows)`."""
    print(format_table(rows, width))


def format_table(rows: Sequence[ResultRow], width: int = WIDTH) -> str:
    """Return percent correct with standard errors, a block per split, each column's best marked.

    Where the columns of the kinds do not fit, their errors are left out, or they themselves are; a
    line says so.

    Args:
        rows: as in `result_rows`.
        width: of a line, in characters.
    """
    return "\n\n".join(_block(table, width) for table in split_tables(rows))


def best_rows(rows: Sequence[ResultRow]) -> str:
    """Return the rows of the first table with the highest means, under a title."""
    table = split_tables(rows)[0]
    lines = [(line, line.cells[-1]) for line in table.lines]
    ranked = sorted(
        ((line, cell) for line, cell in lines if cell), key=lambda x: -x[1].row["value"]
    )[:BEST]
    names = [f"{line.method}, {line.label}" for line, _ in ranked]
    width = max(map(len, names))
    texts = [
        f"  {name.ljust(width)}  {cell.text}" for name, (_, cell) in zip(names, ranked, strict=True)
    ]
    return "\n".join([f"Best of {table.name}, by {table.kinds[-1]}:", *texts])


def _block(table: SplitTable, width: int) -> str:
    """Return the table of one split in the widest form that fits."""
    lines, note = [], ""
    for form in _FORMS:
        lines, note = _lines(table, form), form.note
        if max(map(len, lines)) <= width:
            break
    lines = [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]
    lines.insert(1, "-" * max(map(len, lines)))
    name = table.rows[0]["split"]  # the caption begins with the metric
    title = textwrap.wrap(f"{name}: {table.caption}; * best of its column", width)
    notes = [f"Left out: {note}; report.html has them."] if note else []
    if note and any(line.refused for line in table.lines):
        notes.append(f"{REFUSED} held-out pairs refused some or all of what was learned")
    return "\n".join([*title, *lines, *notes])


def _lines(table: SplitTable, form: _Form) -> list[str]:
    """Return the head and the lines of a table with aligned columns."""
    last = len(table.kinds) - 1
    shown = [last] if form.cell is None else range(last + 1)
    grid = [["method", "prompts", *(table.kinds[i] for i in shown)]]
    for line in table.lines:
        texts = []
        for i in shown:
            cell, text = line.cells[i], form.cell if i < last else _FORMS[0].cell
            mark = "*" if cell and cell.best else " "
            texts.append(f"{text(cell)}{mark}" if cell and text else "- ")
        label = line.name + (REFUSED if line.refused else "") if form.note else line.label
        grid.append([line.method, label, *texts])
    widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
    lines = []
    for texts in grid:
        padded = [text.ljust(width) for text, width in zip(texts[:2], widths[:2], strict=True)]
        padded += [text.rjust(width) for text, width in zip(texts[2:], widths[2:], strict=True)]
        lines.append(form.gap.join(padded).rstrip())
    return lines
