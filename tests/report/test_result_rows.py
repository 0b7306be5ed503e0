"""How rows of results are named and told in words."""

import pytest

from dsd_jax.report.result_rows import (
    difference_text,
    share_text,
    short_names,
    split_tables,
    verdict_text,
)
from tests.report.test_report_files import COMPARISON, row


def test_an_interval_stands_in_place_of_an_error_that_misleads():
    assert share_text(row(value=1.0, stderr=0.0, interval=[0.438, 1.0])) == "100.0 (44–100)"
    assert share_text(row(value=0.801)) == "80.1 ± 1.2"
    equal = {**COMPARISON, "difference": 0.0, "stderr": 0.0, "interval": [-0.032, 0.032]}
    assert difference_text(equal) == "+0.0 (-3 to +3)"
    assert difference_text(COMPARISON) == "-1.2 ± 0.4"


def test_the_caption_says_what_the_parentheses_are():
    few = row(value=1.0, stderr=0.0, n=3, interval=[0.438, 1.0])
    assert "± standard error, or (95 % interval); n = 3" in split_tables([few])[0].caption
    assert "interval" not in split_tables([row()])[0].caption


@pytest.mark.parametrize(
    ("kept", "refused", "verdict"),
    [
        (None, None, ""),
        ("lora 3/3", None, "kept"),
        (None, "lora 3/3", "refused"),
        ("lora 2/3", "lora 1/3", "lora kept in 2 of 3 draws"),
        ("weights 1/1", "lora 1/1", "weights kept, lora refused"),
    ],
)
def test_verdicts_in_words(kept, refused, verdict):
    fields = {"kept": kept, "refused": refused}
    assert verdict_text({name: text for name, text in fields.items() if text}) == verdict


def test_folders_are_shown_by_their_last_parts():
    runs = "/home/someone/with/a/long/name/runs"
    one, other = f"{runs}/a/prompts/lora-8/seed-0", f"{runs}/b/prompts/lora-8/seed-0"
    assert short_names([None, "lora-8", one])[one] == "…/lora-8/seed-0"
    names = short_names([None, "lora-8", one, other, "runs/x"])
    assert names[one] == "…/a/prompts/lora-8/seed-0" and names[other].startswith("…/b/")
    assert (names[None], names["lora-8"], names["runs/x"]) == ("zero-shot", "lora-8", "runs/x")
