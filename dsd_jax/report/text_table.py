"""The table of results for a terminal."""

from collections.abc import Sequence

from dsd_jax.report.report_rows import (
    Row,
    best_values,
    by_series,
    by_split,
    kinds_of,
    percent,
    series_label,
    spread,
)


def print_table(rows: Sequence[Row]) -> None:
    """Prints `format_table(rows)`."""
    print(format_table(rows))


def format_table(rows: Sequence[Row]) -> str:
    """Percent correct with standard errors, a block per split, the best of each column marked."""
    return "\n\n".join(format_split(*of_split) for of_split in by_split(rows).items())


def format_split(name: str, rows: Sequence[Row]) -> str:
    """The block of one split."""
    kinds, best = kinds_of(rows), best_values(rows)
    table = [["method", "prompts", *kinds]]
    for (method, prompts), cells in by_series(rows).items():
        line = [method, series_label(prompts, cells)]
        for kind in kinds:
            row = cells.get(kind)
            mark = "*" if row and row["value"] == best[kind] else " "
            line.append(f"{percent(row)}{mark}" if row else "- ")
        table.append(line)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for line in table:
        texts = [cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True)]
        texts += [cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True)]
        lines.append("  ".join(texts).rstrip())
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([f"{name}: {table_caption(rows)}", *lines])


def table_caption(rows: Sequence[Row]) -> str:
    """What the numbers of a split are, with n and chance."""
    sizes, chances = {}, {}
    for row in rows:
        group = "for the mean over all items" if row["kind"] == "mean" else "a kind"
        sizes.setdefault(group, set()).add(row["n"])
        chances.setdefault(row["chance"], None)
    count = ", ".join(f"{spread(values)} {group}" for group, values in sizes.items())
    chance = " or ".join(f"{100 * chance:.3g}" for chance in chances)
    return (
        f"{rows[0]['metric']} in % \N{PLUS-MINUS SIGN} standard error; n = {count}; "
        f"chance {chance} %; * best of its column"
    )
