"""Results as rows, and how they are grouped, wherever they are shown.

A row is a dict as in `report.json`:
`{"method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance"}`, where
`prompts` is None for zero-shot and else names kind and shots ("lora-256"), `kind` is that of the
negative or "mean", and `value`, `stderr` and `chance` are fractions, not percent. Few-shot rows
have "refused" too where held-out shots refused some of what was learned, such as "lora 2/3": in two
of three draws the row is scored without LoRA.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Row: TypeAlias = Mapping[str, object]

ROW_FIELDS = ("method", "prompts", "split", "kind", "metric", "value", "stderr", "n", "chance")
OPTIONAL_ROW_FIELDS = ("refused",)
# Of a paired comparison: the row's value minus that of the row it is compared with, same items.
COMPARISON_FIELDS = (
    *("method", "prompts", "baseline_method", "baseline_prompts", "split", "kind"),
    *("difference", "stderr", "n"),
)


@dataclass(frozen=True)
class Decision:
    """One choice between two pictures for a caption, or two captions for a picture, to be shown.

    The pictures are uint8 (H, W, 3); the positive one fits the caption. Where captions are the
    candidates, both pictures are the same, and `other_caption` is the one that does not fit.
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
        """Whether the candidate that fits has the higher score; a tie is not right."""
        return self.positive_score > self.negative_score


def percent(row: Row) -> str:
    """`79.6 ± 0.8`."""
    return f"{100 * row['value']:.1f} \N{PLUS-MINUS SIGN} {100 * row['stderr']:.1f}"


def prompts_label(prompts: str | None) -> str:
    """How the absence of learned prompts is called."""
    return "zero-shot" if prompts is None else prompts


def series_label(prompts: str | None, cells: Mapping[str, Row]) -> str:
    """Return the label of a series, {kind: row}, with what held-out shots refused of it."""
    refused = next(iter(cells.values())).get("refused")
    return f"{prompts_label(prompts)} (refused: {refused})" if refused else prompts_label(prompts)


def by_split(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows of each split and metric, in order of appearance; the metric is named if several are."""
    several = len({row["metric"] for row in rows}) > 1
    splits = {}
    for row in rows:
        name = f"{row['split']}, {row['metric']}" if several else row["split"]
        splits.setdefault(name, []).append(row)
    return splits


def by_series(rows: Sequence[Row]) -> dict[tuple[str, str | None], dict[str, Row]]:
    """{(method, prompts): {kind: row}} of one split; methods together, else as they came."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    series = {}
    for row in sorted(rows, key=lambda row: methods.index(row["method"])):
        series.setdefault((row["method"], row["prompts"]), {})[row["kind"]] = row
    return series


def kinds_of(rows: Sequence[Row]) -> list[str]:
    """Kinds in order of appearance, the mean last."""
    kinds = dict.fromkeys(row["kind"] for row in rows)
    return sorted(kinds, key=lambda kind: kind == "mean")


def best_values(rows: Sequence[Row]) -> dict[str, float]:
    """The highest value of each kind."""
    best = {}
    for row in rows:
        best[row["kind"]] = max(row["value"], best.get(row["kind"], -np.inf))
    return best


def spread(values: Iterable[int]) -> str:
    """`500`, or `500 to 1500` if they differ."""
    low, high = min(values), max(values)
    return f"{low}" if low == high else f"{low} to {high}"
