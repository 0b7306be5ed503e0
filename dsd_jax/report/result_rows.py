"""Rows of results, and how they are grouped into tables wherever they are shown.

A row is a dict as in `report.json`:
`{"method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance"}`, where
`prompts` is None for zero-shot and else names kind and shots ("lora-256"), `kind` is that of the
negative or "mean", and `value`, `stderr` and `chance` are fractions, not percent. Few-shot rows
have "refused" too where held-out shots refused some of what was learned, such as "lora 2/3": in two
of three draws the row is scored without LoRA.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

ResultRow: TypeAlias = Mapping[str, Any]  # JSON

ROW_FIELDS = ("method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance")
OPTIONAL_ROW_FIELDS = ("refused",)
# A paired comparison: the row's value minus that of the row it is compared with, same items.
COMPARISON_FIELDS = (
    *("method", "prompts", "baseline_method", "baseline_prompts", "split", "kind"),
    *("difference", "stderr", "n"),
)


@dataclass(frozen=True)
class Decision:
    """A choice between two images for a caption, or two captions for an image, to be shown.

    The images are uint8 (height, width, 3); the positive one fits the caption. Where captions are
    the candidates, both images are the same, and `other_caption` is the one that does not fit.
    """

    caption: str
    positive: np.ndarray
    negative: np.ndarray
    positive_score: float
    negative_score: float
    method: str
    prompts: str | None
    kind: str
    split: str
    other_caption: str | None = None

    @property
    def right(self) -> bool:
        """Return whether the candidate that fits has the higher score; a tie is not right."""
        return self.positive_score > self.negative_score

    @property
    def prompts_label(self) -> str:
        """The prompts' name, or "zero-shot"."""
        return prompts_label(self.prompts)


class Cell(NamedTuple):
    """A number of a table: its row of results, and whether it is the best of its column."""

    row: ResultRow
    best: bool

    @property
    def text(self) -> str:
        """The value and its standard error in percent, such as "79.6 ± 0.8"."""
        return f"{100 * self.row['value']:.1f} ± {100 * self.row['stderr']:.1f}"

    @property
    def heat(self) -> float:
        """The share of the way from chance to 100 %."""
        value, chance = self.row["value"], self.row["chance"]
        return max(0.0, (value - chance) / (1 - chance))


class TableLine(NamedTuple):
    """A line of a table: a method under some prompts.

    Attributes:
        method: its name.
        prompts: their name, None for zero-shot.
        label: the prompts as they are shown, with what held-out shots refused of them.
        cells: one for each of the table's kinds, None where there is no row.
    """

    method: str
    prompts: str | None
    label: str
    cells: Sequence[Cell | None]


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
    rows_by_split: dict[str, list[ResultRow]] = {}
    for row in rows:
        name = f"{row['split']}, {row['metric']}" if several_metrics else row["split"]
        rows_by_split.setdefault(name, []).append(row)
    return [_table(name, split_rows) for name, split_rows in rows_by_split.items()]


def _table(name: str, rows: Sequence[ResultRow]) -> SplitTable:
    kinds = sorted(dict.fromkeys(row["kind"] for row in rows), key=lambda kind: kind == "mean")
    best = {kind: max(row["value"] for row in rows if row["kind"] == kind) for kind in kinds}
    methods = list(dict.fromkeys(row["method"] for row in rows))
    series: dict[tuple[str, str | None], dict[str, ResultRow]] = {}
    for row in sorted(rows, key=lambda row: methods.index(row["method"])):
        series.setdefault((row["method"], row["prompts"]), {})[row["kind"]] = row
    lines = []
    for (method, prompts), by_kind in series.items():
        refused = next(iter(by_kind.values())).get("refused")
        label = prompts_label(prompts) + (f" (refused: {refused})" if refused else "")
        cells = {kind: Cell(row, row["value"] == best[kind]) for kind, row in by_kind.items()}
        lines.append(TableLine(method, prompts, label, [cells.get(kind) for kind in kinds]))
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
    return f"{rows[0]['metric']} in % ± standard error; n = {', '.join(counts)}; chance {chance} %"


def prompts_label(prompts: str | None) -> str:
    """Return the name of prompts, or "zero-shot" where there are none."""
    return "zero-shot" if prompts is None else prompts


def difference_text(row: ResultRow) -> str:
    """Return a comparison's difference in percentage points, such as "-1.2 ± 0.4"."""
    return f"{100 * row['difference']:+.1f} ± {100 * row['stderr']:.1f}"
