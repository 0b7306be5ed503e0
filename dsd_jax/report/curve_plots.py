"""Small plots of a page: held-out losses by step, and percent correct by the number of shots."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from dsd_jax.report.charts import Axis, axis_around, bar_ends
from dsd_jax.report.result_rows import ResultRow, SplitTable, share_text
from dsd_jax.report.run_details import LearningRun


class PlotPoint(NamedTuple):
    """A point of a curve: its position from left to right, its value and its error bar."""

    x: float
    y: float
    ends: tuple[float, float] | None = None
    marked: bool = False


class Plot(NamedTuple):
    """A small plot of curves.

    Attributes:
        name: of what is plotted.
        verdict: of the held-out shots, in words; "" for none.
        curves: drawn as lines.
        x_ticks: (position in percent, label).
        axis: the vertical one.
        reference: value of the dashed line.
        summary: what there is to see, for those who cannot see it.
    """

    name: str
    verdict: str
    curves: list[list[PlotPoint]]
    x_ticks: list[tuple[float, str]]
    axis: Axis
    reference: float
    summary: str


def learning_plots(learning: Sequence[LearningRun]) -> list[Plot]:
    """Return a plot of held-out losses by step for each few-shot row, a curve per draw."""
    by_prompts: dict[str, list[LearningRun]] = {}
    for run in learning:
        if len(run.losses) > 1:
            by_prompts.setdefault(run.prompts, []).append(run)
    return [_learning_plot(name, runs) for name, runs in by_prompts.items()]


def _learning_plot(name: str, runs: Sequence[LearningRun]) -> Plot:
    steps = axis_around([0.0, *(float(step) for run in runs for step in run.losses)])
    axis = axis_around([loss for run in runs for loss in run.losses.values()])
    start = [next(iter(run.losses.values())) for run in runs]
    curves = [
        [
            PlotPoint(steps.percent(step), loss, marked=bool(step) and step == run.kept_step)
            for step, loss in run.losses.items()
        ]
        for run in runs
    ]
    kept = sum(bool(run.kept_step) for run in runs)
    verdict = {0: "refused", len(runs): "kept"}.get(kept, f"kept in {kept} of {len(runs)} draws")
    return Plot(
        name=name,
        verdict=verdict,
        curves=curves,
        x_ticks=[(steps.percent(tick), f"{tick:.0f}") for tick in steps.few_ticks],
        axis=axis,
        reference=sum(start) / len(start),
        summary="; ".join(_told(run) for run in runs),
    )


def _told(run: LearningRun) -> str:
    """Return what a curve shows, in words."""
    losses = list(run.losses.values())
    best = min(run.losses, key=lambda step: run.losses[step])
    kept = f"kept step {run.kept_step}" if run.kept_step else "nothing kept"
    return (
        f"draw {run.seed}: held-out loss {losses[0]:.3f} at step 0, lowest {run.losses[best]:.3f} "
        f"at step {best}, {kept}"
    )


def shots_plots(tables: Sequence[SplitTable]) -> list[tuple[str, list[Plot]]]:
    """Return for each split plots of percent correct by the number of shots.

    There is one for each method and recipe with several numbers of shots.
    """
    found = []
    for table in tables:
        means = {(row["method"], row["prompts"]): row for row in table.means}
        series: dict[tuple[str, str], dict[int, ResultRow]] = {}
        for (method, prompts), row in means.items():
            recipe, _, count = (prompts or "").rpartition("-")
            if recipe and count.isdecimal() and (method, None) in means and "/" not in recipe:
                series.setdefault((method, recipe), {})[int(count)] = row
        several = {key: rows for key, rows in series.items() if len(rows) > 1}
        if several:
            ends = [
                end
                for (method, _), by_count in several.items()
                for row in [means[method, None], *by_count.values()]
                for end in bar_ends(row, "value")
            ]
            axis = axis_around(ends, least_step=1, low=0, high=100)
            plots = [
                _shots_plot(f"{method}, {recipe}", means[method, None], by_count, axis)
                for (method, recipe), by_count in several.items()
            ]
            found.append((table.name, plots))
    return found


def _shots_plot(
    name: str, zero_shot: ResultRow, by_count: Mapping[int, ResultRow], axis: Axis
) -> Plot:
    """Return a plot with zero-shot at the left, then the numbers of shots at equal factors."""
    rows = {0: zero_shot, **dict(sorted(by_count.items()))}
    counts = list(rows)
    low, high = math.log2(counts[1]), math.log2(counts[-1])
    spread = {count: 30 + 65 * (math.log2(count) - low) / (high - low) for count in counts[1:]}
    place = {0: 5.0, **spread}
    curve = [
        PlotPoint(place[count], 100 * row["value"], bar_ends(row, "value"), marked="kept" in row)
        for count, row in rows.items()
    ]
    return Plot(
        name=name,
        verdict="",
        curves=[curve],
        x_ticks=[(place[count], str(count)) for count in counts],
        axis=axis,
        reference=100 * zero_shot["value"],
        summary="; ".join(f"{count} shots: {share_text(row)} %" for count, row in rows.items()),
    )
