"""Rows of results, and how they are grouped into tables wherever they are shown.

A row is a dict as in `report.json`:
`{"method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance"}`, where
`prompts` is None for zero-shot and else names kind and shots ("lora-256") or is the folder they
came from, `kind` is that of the negative or "mean", and `value`, `stderr` and `chance` are
fractions, not percent. Some rows have more:

- "interval", the ends of an interval of 95 %, where few items or an extreme share make the
  standard error misleading;
- "kept" and "refused", what held-out shots kept and refused of what was learned for a few-shot row:
  "lora 2/3" among the refused means that in two of three draws the row is scored without LoRA.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

ResultRow: TypeAlias = Mapping[str, Any]  # JSON

ROW_FIELDS = ("method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance")
# A paired comparison: the row's value minus that of the row it is compared with, same items.
COMPARISON_FIELDS = (
    *("method", "prompts", "baseline_method", "baseline_prompts", "split", "kind"),
    *("difference", "stderr", "n"),
)
OPTIONAL_FIELDS = ("interval", "kept", "refused")
ZERO_SHOT = "zero-shot"


class Cell(NamedTuple):
    """A number of a table: its row of results, and whether it is the best of its column."""

    row: ResultRow
    best: bool

    @property
    def text(self) -> str:
        """The value in percent with its error, "79.6 ± 0.8", or its interval, "100.0 (94–100)"."""
        return share_text(self.row)

    @property
    def heat(self) -> float:
        """The share of the way from chance to 100 %."""
        value, chance = self.row["value"], self.row["chance"]
        return max(0.0, (value - chance) / (1 - chance))


@dataclass(frozen=True)
class TableLine:
    """A line of a table: a method under some prompts.

    Attributes:
        method: its name.
        prompts: their name, None for zero-shot.
        name: the prompts as they are shown; a long path is shortened.
        verdict: what held-out shots decided of them, in words; empty where that is not known.
        refused: what they refused, such as "lora 2/3".
        cells: one for each of the table's kinds, None where there is no row.
    """

    method: str
    prompts: str | None
    name: str
    verdict: str
    refused: str
    cells: Sequence[Cell | None]

    @property
    def label(self) -> str:
        """The prompts with what held-out shots refused of them, for tables of text."""
        return f"{self.name} (refused: {self.refused})" if self.refused else self.name


class SplitTable(NamedTuple):
    """The results of one split, by one metric where there are several.

    Attributes:
        name: of the split, and of the metric where there are several.
        caption: what the numbers are, with n and chance.
        rows: all of the split.
        kinds: the columns, in order of appearance, the mean last.
        lines: methods together, else in order of appearance.
    """

    name: str
    caption: str
    rows: Sequence[ResultRow]
    kinds: Sequence[str]
    lines: Sequence[TableLine]

    @property
    def means(self) -> list[ResultRow]:
        """The rows over all items."""
        return [row for row in self.rows if row["kind"] == "mean"]


def split_tables(rows: Sequence[ResultRow]) -> list[SplitTable]:
    """Return a table for each split and metric, in order of appearance."""
    several_metrics = len({row["metric"] for row in rows}) > 1
    names = short_names(row["prompts"] for row in rows)
    rows_by_split: dict[str, list[ResultRow]] = {}
    for row in rows:
        name = f"{row['split']}, {row['metric']}" if several_metrics else row["split"]
        rows_by_split.setdefault(name, []).append(row)
    return [_table(name, split_rows, names) for name, split_rows in rows_by_split.items()]


def _table(
    name: str, rows: Sequence[ResultRow], prompt_names: Mapping[str | None, str]
) -> SplitTable:
    kinds = sorted(dict.fromkeys(row["kind"] for row in rows), key=lambda kind: kind == "mean")
    best = {kind: max(row["value"] for row in rows if row["kind"] == kind) for kind in kinds}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    series: dict[tuple[str, str | None], dict[str, ResultRow]] = {}
    for row in sorted(rows, key=lambda row: methods.index(row["method"])):
        series.setdefault((row["method"], row["prompts"]), {})[row["kind"]] = row
    lines = []
    for (method, prompts), by_kind in series.items():
        first = next(iter(by_kind.values()))
        cells = {kind: Cell(row, row["value"] == best[kind]) for kind, row in by_kind.items()}
        line = TableLine(
            method,
            prompts,
            name=prompt_names[prompts],
            verdict=verdict_text(first),
            refused=first.get("refused", ""),
            cells=[cells.get(kind) for kind in kinds],
        )
        lines.append(line)
    return SplitTable(name, _caption(rows), rows, kinds, lines)


def _caption(rows: Sequence[ResultRow]) -> str:
    """Return the sentence that explains the numbers of a split, with n and chance."""
    sizes: dict[str, list[int]] = {}
    for row in rows:
        group = "for the mean over all items" if row["kind"] == "mean" else "a kind"
        sizes.setdefault(group, []).append(row["n"])
    counts = []
    for group, values in sizes.items():
        low, high = min(values), max(values)
        counts.append(f"{low} {group}" if low == high else f"{low} to {high} {group}")
    chance = " or ".join(
        f"{100 * chance:.3g}" for chance in dict.fromkeys(r["chance"] for r in rows)
    )
    between = ", or (95 % interval)" if any("interval" in row for row in rows) else ""
    return (
        f"{rows[0]['metric']} in % ± standard error{between}; n = {', '.join(counts)}; "
        f"chance {chance} %"
    )


def short_names(prompts: Iterable[str | None]) -> dict[str | None, str]:
    """Return how prompts are shown: labels as they are, folders by as few last parts as tell them.

    Two parts at least, such as "…/adapted-256/seed-0": a whole path would fill the table.
    """
    different = list(dict.fromkeys(prompts))
    names: dict[str | None, str] = {}
    for label in different:
        parts = (label or ZERO_SHOT).rstrip("/").split("/")
        others = [other for other in different if other and other != label]
        count = next(
            (
                n
                for n in range(2, len(parts))
                if not any(_ends_alike(other, parts[-n:]) for other in others)
            ),
            len(parts),
        )
        names[label] = "/".join(parts if count >= len(parts) else ["…", *parts[-count:]])
    return names


def _ends_alike(prompts: str, end: Sequence[str]) -> bool:
    return prompts.rstrip("/").split("/")[-len(end) :] == list(end)


def verdict_text(row: ResultRow) -> str:
    """Return what held-out shots decided of a row's prompts, in words; "" where it is not known.

    That is "kept", "refused", or where it differs between kinds or draws such as "lora kept in 2 of
    3 draws" or "weights kept, lora refused".
    """
    kept, refused = _counts(row.get("kept", "")), _counts(row.get("refused", ""))
    if not kept or not refused:
        return "kept" if kept else "refused" if refused else ""
    texts = []
    for kind in dict.fromkeys([*kept, *refused]):
        (count, draws), against = kept.get(kind, (0, 0)), refused.get(kind)
        if not against:
            texts.append(f"{kind} kept")
        elif not count:
            texts.append(f"{kind} refused")
        else:
            texts.append(f"{kind} kept in {count} of {draws} draws")
    return ", ".join(texts)


def _counts(text: str) -> dict[str, tuple[int, int]]:
    """Return {"lora": (2, 3)} of "lora 2/3"."""
    counts = {}
    for part in filter(None, text.split(", ")):
        kind, _, numbers = part.rpartition(" ")
        count, draws = numbers.split("/")
        counts[kind] = int(count), int(draws)
    return counts


def share_text(row: ResultRow) -> str:
    """Return a row's value in percent, "79.6 ± 0.8", or with its interval, "100.0 (94–100)"."""
    if "interval" in row:
        low, high = row["interval"]
        return f"{100 * row['value']:.1f} ({100 * low:.0f}–{100 * high:.0f})"
    return f"{100 * row['value']:.1f} ± {100 * row['stderr']:.1f}"


def difference_text(row: ResultRow) -> str:
    """Return a comparison's difference in points, "-1.2 ± 0.4", or "+0.0 (-3 to +3)"."""
    if "interval" in row:
        low, high = row["interval"]
        return f"{100 * row['difference']:+.1f} ({100 * low:+.0f} to {100 * high:+.0f})"
    return f"{100 * row['difference']:+.1f} ± {100 * row['stderr']:.1f}"
