"""Where charts put values, and what they tell in words."""

import pytest

from dsd_jax.report import HeldOutGain, LearningRun, charts
from tests.report.test_report_files import COMPARISON, row


@pytest.mark.parametrize(
    ("values", "limits", "low", "high"),
    [
        ((50, 65, 85), {}, 50, 85),
        ((50, 95, 103), {}, 50, 100),
        ((-20, 50, 120), {}, 0, 100),
        ((50, 38, 42), {}, 38, 50),
        ((50,), {}, 50, 51),
        ((100,), {}, 99, 100),
        ((0, -2, 0), {"low": -100}, -2, 0),
    ],
)
def test_axis_holds_bars_within_what_is_possible(values, limits, low, high):
    axis = charts.axis_around(values, **{"least_step": 1, "low": 0, "high": 100, **limits})
    assert (axis.low, axis.high) == (low, high)
    assert axis.ticks[0] == low
    assert axis.ticks[-1] == high
    assert len(axis.ticks) <= 10


def test_axis_of_small_numbers():
    axis = charts.axis_around([0.0, 0.013, -0.004])
    assert axis.low <= -0.004 and axis.high >= 0.013
    assert axis.tick_label(axis.ticks[0]) == "-0.005" and axis.tick_label(0.0) == "0.000"
    assert axis.at(axis.low) == "0.00%" and axis.height(axis.low) == "100.00%"


def test_bars_end_at_0_and_100():
    assert charts.bar_ends(row(value=0.99, stderr=0.02), "value") == (95.0, 100)
    assert charts.bar_ends(row(value=0.01, stderr=0.02), "value") == (0, 5.0)
    assert charts.bar_ends(row(value=1.0, stderr=0.0, interval=[0.44, 1.0]), "value") == (44, 100)


def test_what_was_refused_is_no_difference():
    """Neither a number with an error, nor told again beside the best row."""
    refused = row("dsd", "lora-256", refused="lora 1/1")
    own = {**COMPARISON, "baseline_method": "dsd", "difference": 0.0, "stderr": 0.0}
    (chart,) = charts.difference_charts([own, COMPARISON], [row(), row("noise"), refused])
    (point,) = chart.points
    assert point.text == "refused: the same row" and point.ends == (0.0, 0.0)


def test_gains_by_which_is_kept():
    gains = [
        HeldOutGain("weights of itm", kept=True, gain=0.0512, error=0.0101, items=16),
        HeldOutGain("LoRA", kept=False, gain=0.004, error=0.02, items=16),
    ]
    chart = charts.gain_chart([LearningRun("both-16", 0, {}, 0, gains)])
    kept, refused = chart.points
    assert (kept.text, kept.verdict, kept.filled) == ("+0.051 ± 0.010", "kept", True)
    assert kept.ends == pytest.approx((0.0411, 0.0613))
    assert (refused.text, refused.verdict, refused.filled) == ("+0.004 ± 0.020", "refused", False)
    assert HeldOutGain("LoRA", kept=False, gain=0.0, error=0.0).text == "nothing gained"
    assert refused.label == "LoRA"  # draws are named where there are several


@pytest.mark.parametrize(
    ("axis", "shown"),
    [
        (charts.Axis(30, 100, 10), ["40", "60", "80", "100"]),
        (charts.Axis(-60, 60, 20), ["-40", "0", "+40"]),
        (charts.Axis(50, 100, 10), ["50", "60", "70", "80", "90", "100"]),
    ],
)
def test_ticks_on_a_narrow_screen(axis, shown):
    assert [axis.tick_label(tick) for tick in axis.ticks if not axis.is_minor(tick)] == shown
