"""The printed table, in the width of a terminal, and the best rows."""

import pytest

from dsd_jax.report import best_rows, format_table, print_table
from tests.report.test_report_files import ROWS, row

KINDS = ("subject", "object", "relation", "size", "background", "mean")


def test_table_is_aligned_and_marks_the_best(capsys):
    print_table(ROWS)
    text = capsys.readouterr().out
    assert text == format_table(ROWS) + "\n"
    unseen, seen = text.split("\n\n")
    *title, head, rule, first, second, third = unseen.splitlines()
    lines = [first, second, third]
    assert " ".join(title) == (
        "unseen: accuracy in % ± standard error; n = 1000 for the mean over all items, "
        "500 to 1500 a kind; "
        "chance 50 %; * best of its column"
    )
    assert head.split() == ["method", "prompts", "subject", "relation", "mean"]
    assert set(rule) == {"-"}
    assert [line.split()[:2] for line in lines] == [
        ["dsd", "zero-shot"],
        ["dsd", "lora-256"],  # beside its method, wherever its rows came
        ["noise", "zero-shot"],
    ]
    assert lines[0].split()[2:] == ["70.0", "±", "1.2", "90.2", "±", "1.2*", "80.1", "±", "1.2"]
    assert lines[1].split()[2:] == ["77.7", "±", "1.2", "-", "-"]
    assert lines[2].split()[2:] == ["84.9", "±", "1.2*", "-", "84.9", "±", "1.2*"]
    assert len({line.rstrip(" *").rindex("±") for line in (lines[0], lines[2])}) == 1
    assert "seen: accuracy" in seen


def test_equal_best_values_are_both_marked():
    assert format_table([row(), row("noise")]).count("75.0 ± 1.2*") == 2


def test_a_table_that_is_too_wide_loses_errors_first_then_kinds():
    rows = [row(kind=kind) for kind in KINDS]
    rows += [row("attention", "weights-256", kind=kind) for kind in KINDS]
    whole, cut, narrow = (format_table(rows, width) for width in (200, 80, 50))
    for text, width in ((whole, 200), (cut, 80), (narrow, 50)):
        assert max(map(len, text.splitlines())) <= width
    assert whole.count("75.0 ± 1.2*") == 12 and "Left out" not in whole
    assert cut.count("75.0 ± 1.2*") == 2 and cut.count("75.0* ") == 10
    assert cut.endswith("Left out: the errors of the kinds; report.html has them.")
    assert narrow.count("75.0") == 2 and "subject" not in narrow
    assert narrow.endswith("Left out: the kinds; report.html has them.")


def test_what_was_refused_is_a_mark_where_there_is_no_room():
    rows = [row(kind=kind) for kind in KINDS]
    rows += [row("dsd", "weights-256", kind=kind, refused="weights 1/1") for kind in KINDS]
    cut, wide = format_table(rows), format_table(rows, 200)
    assert "weights-256\N{DAGGER} " in cut and "refused: weights" not in cut
    assert cut.endswith("\N{DAGGER} held-out pairs refused some or all of what was learned")
    assert "(refused: weights 1/1)" in wide and "\N{DAGGER}" not in wide
    assert cut.count("75.0* ") == 10  # the kinds are there


def test_the_metric_stands_once_in_a_heading():
    rows = [row(metric="R@1"), row(metric="R@5")]
    first, second = format_table(rows).split("\n\n")
    assert first.startswith("unseen: R@1 in %") and second.startswith("unseen: R@5 in %")


def test_the_best_rows_are_three_of_the_first_split_in_order():
    rows = [
        row("noise", value=0.6),
        row("dsd", "lora-256", value=0.9),
        row("itm", value=0.8),
        row("attention", value=0.7),
        row("dsd", split="seen", value=1.0),
    ]
    assert best_rows(rows).splitlines() == [
        "Best of unseen, by mean:",
        "  dsd, lora-256         90.0 ± 1.2",
        "  itm, zero-shot        80.0 ± 1.2",
        "  attention, zero-shot  70.0 ± 1.2",
    ]


@pytest.mark.parametrize("value", [0.75, 1.0])
def test_a_single_row_is_its_own_best(value):
    assert best_rows([row(value=value)]).count("dsd, zero-shot") == 1
