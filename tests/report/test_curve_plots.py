"""What small plots show, and what they tell in words."""

import pytest

from dsd_jax.report import LearningRun, curve_plots
from dsd_jax.report.result_rows import split_tables
from tests.report.test_report_files import row


def test_learning_curves_mark_what_was_kept():
    losses = {0: 0.7, 20: 0.5, 40: 0.6}
    runs = [LearningRun("lora-16", 0, losses, 20), LearningRun("lora-16", 1, losses, 0)]
    (plot,) = curve_plots.learning_plots([*runs, LearningRun("weights-16", 0, {}, 0)])
    assert plot.verdict == "kept in 1 of 2 draws" and plot.reference == 0.7
    assert [[point.marked for point in curve] for curve in plot.curves] == [
        [False, True, False],
        [False, False, False],
    ]
    assert [point.x for point in plot.curves[0]] == [0, 50, 100]
    assert "lowest 0.500 at step 20, kept step 20; draw 1" in plot.summary


def test_accuracy_by_the_number_of_shots():
    rows = [
        row("itm", value=0.6),
        row("itm", "lora-64", value=0.8, kept="lora 1/1"),
        row("itm", "lora-16", value=0.6, refused="lora 1/1"),
        row("itm", "tokens-16", value=0.7),
    ]
    ((name, plots),) = curve_plots.shots_plots(split_tables(rows))
    (plot,) = plots  # of tokens there is one number
    assert name == "unseen" and plot.name == "itm, lora" and plot.reference == pytest.approx(60)
    assert [label for _, label in plot.x_ticks] == ["0", "16", "64"]
    assert [point.y for point in plot.curves[0]] == pytest.approx([60, 60, 80])
    assert [point.marked for point in plot.curves[0]] == [False, False, True]
    assert curve_plots.shots_plots(split_tables([row("itm"), row("itm", "runs/a/seed-0")])) == []
