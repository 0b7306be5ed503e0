"""Reports: the printed table, report.json and report.html."""

import base64
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dsd_jax.report import Decision, format_table, print_table, write_report
from dsd_jax.report.chart import Axis, Point, axis_around, track
from dsd_jax.report.html_page import means_section
from dsd_jax.report.report_rows import by_split

HEADER = {
    "benchmark": "emoji <scenes>",
    "weights": "tiny",
    "seed": 0,
    "seconds": 75.4,
    "device": "cpu",
    "versions": {"jax": "0.10.2"},
}
VOID = {"meta", "br", "img"}


def row(method="dsd", prompts=None, split="unseen", kind="mean", value=0.75, n=500, **other):
    fields = {"metric": "accuracy", "stderr": 0.0123, "chance": 0.5, **other}
    names = {"method": method, "prompts": prompts, "split": split, "kind": kind}
    return {**names, "value": value, "n": n, **fields}


ROWS = [
    row(kind="mean", value=0.801, n=1000),
    row(kind="subject", value=0.7),
    row(kind="relation", value=0.902),
    row("noise", kind="subject", value=0.849),
    row("noise", value=0.849, n=1000),
    row("dsd", "lora-256", kind="subject", value=0.777, n=1500),
    row(split="seen", value=0.51),
]
COMPARISON = {
    "method": "dsd",
    "prompts": "lora-256",
    "baseline_method": "noise",
    "baseline_prompts": None,
    "split": "unseen",
    "kind": "mean",
    "difference": -0.0123,
    "stderr": 0.004,
    "n": 1000,
}


def decision(positive_score=0.5, negative_score=0.25, size=64, caption="a <b>cat</b> & a dog"):
    positive = np.full((size, size, 3), 200, np.uint8)
    return Decision(
        caption=caption,
        positive=positive,
        negative=positive // 2,
        positive_score=positive_score,
        negative_score=negative_score,
        method="dsd",
        prompts="lora-256",
        kind="subject",
        split="unseen",
    )


def test_table_is_aligned_and_marks_the_best(capsys):
    print_table(ROWS)
    text = capsys.readouterr().out
    assert text == format_table(ROWS) + "\n"
    unseen, seen = text.split("\n\n")
    title, head, rule, *lines = unseen.splitlines()
    assert title == (
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


def test_markdown_has_the_same_numbers_and_the_paired_differences(tmp_path):
    write_report(tmp_path, HEADER, ROWS, comparisons=[COMPARISON, {**COMPARISON, "kind": "size"}])
    unseen, seen, differences = (tmp_path / "report.md").read_text().split("\n\n|")[1:]
    lines = [
        line.strip("| ").split(" | ") for line in unseen.splitlines() if line.startswith((" ", "|"))
    ]
    assert lines[0] == ["unseen", "prompts", "subject", "relation", "mean"]
    assert lines[2] == ["`dsd`", "zero-shot", "70.0 ± 1.2", "**90.2 ± 1.2**", "80.1 ± 1.2"]
    assert lines[3] == ["`dsd`", "lora-256", "77.7 ± 1.2", "–", "–"]
    assert lines[4][2:] == ["**84.9 ± 1.2**", "–", "**84.9 ± 1.2**"]
    assert "51.0 ± 1.2" in seen
    assert differences.count("-1.2 ± 0.4") == 1  # of the mean alone
    assert "| `dsd` lora-256 | `noise` zero-shot |" in differences


def test_what_was_refused_stands_beside_its_name(tmp_path):
    refused = row("dsd", "lora-256", refused="lora 3/3")
    assert "lora-256 (refused: lora 3/3)" in format_table([row(), refused])
    write_report(tmp_path, HEADER, [row(), refused])
    for name in ("report.md", "report.html"):
        assert "lora-256 (refused: lora 3/3)" in (tmp_path / name).read_text()
    assert json.loads((tmp_path / "report.json").read_text())["results"] == [row(), refused]


def test_json_is_as_documented(tmp_path):
    write_report(tmp_path, HEADER, ROWS, [decision()])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == {**HEADER, "results": ROWS}
    write_report(tmp_path, HEADER, ROWS, comparisons=[COMPARISON])
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["comparisons"] == [COMPARISON]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "report.html",
        "report.json",
        "report.md",
    ]


def test_numbers_of_numpy_are_written(tmp_path):
    write_report(tmp_path, HEADER, [row(value=np.float32(0.5), n=np.int64(3), stderr=np.ones(()))])
    (written,) = json.loads((tmp_path / "report.json").read_text())["results"]
    assert (written["value"], written["n"], written["stderr"]) == (0.5, 3, 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(value=float("nan")), "value of a row is not finite"),
        (row(stderr=np.float32("inf")), "stderr of a row is not finite"),
        (row(extra=1), "a row has fields"),
        ({"method": "dsd"}, "a row has fields"),
    ],
)
def test_what_is_no_result_is_refused_and_leaves_the_old_report(tmp_path, bad, message):
    path = write_report(tmp_path, HEADER, ROWS)
    before = path.read_text()
    with pytest.raises(ValueError, match=message):
        write_report(tmp_path, HEADER, [bad])
    assert path.read_text() == before
    assert json.loads((tmp_path / "report.json").read_text())["results"] == ROWS


class Page(HTMLParser):
    """Checks that tags are closed in order; collects text and attributes."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.text, self.attributes, self.tags = [], [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.handle_endtag(tag)

    def handle_data(self, data):
        self.text.append(data)


def page_of(tmp_path, *args, **kwargs) -> Page:
    return Page(write_report(tmp_path, HEADER, *args, **kwargs).read_text(encoding="utf-8"))


def test_page_needs_nothing_from_outside(tmp_path):
    page = page_of(tmp_path, ROWS, [decision()], comparisons=[COMPARISON])
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    text = (tmp_path / "report.html").read_text()
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_page_shows_all_numbers(tmp_path):
    page = page_of(tmp_path, ROWS, [decision()], comparisons=[COMPARISON])
    text = "".join(page.text)
    for number in ("80.1 ± 1.2", "90.2 ± 1.2", "84.9 ± 1.2", "77.7 ± 1.2", "51.0 ± 1.2"):
        assert number in text
    assert "-1.2 ± 0.4" in text
    assert "minus noise zero-shot" in text
    assert "chance 50 %" in text
    assert "emoji <scenes>" in text  # escaped, else it would be a tag
    assert "1 min 15 s" in text
    assert "jax 0.10.2" in text
    assert "How to read this" in text


def test_headline_has_the_best_of_each(tmp_path):
    rows = [row(value=0.7), row("noise", value=0.8), row("dsd", "lora-16", value=0.6)]
    text = re.sub(r"\s+", " ", "".join(page_of(tmp_path, rows).text))
    assert (
        "best zero-shot80.0 % ± 1.2noise (of 2 rows)best few-shot60.0 % ± 1.2dsd, lora-16" in text
    )


def test_page_of_rows_without_means_or_few_shot(tmp_path):
    assert "best few-shot" not in "".join(page_of(tmp_path, [row()]).text)
    assert "dashed: chance" not in "".join(page_of(tmp_path, [row(kind="size")]).text)


def test_decisions_are_pictured_with_scores_and_verdict(tmp_path):
    page = page_of(tmp_path, ROWS, [decision(), decision(0.2, 0.3), decision(0.3, 0.3)])
    text = "".join(page.text)
    assert text.count("a <b>cat</b> & a dog") == 3
    assert text.count("✓ right") == 1
    assert text.count("✗ wrong") == 2  # a tie is not right
    chosen = [value for tag, name, value in page.attributes if (tag, name) == ("figure", "class")]
    assert chosen == ["chosen", "chosen"]  # nothing is chosen in a tie
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert alts == [
        *("picture that fits", "picture that does not fit, chosen by the model"),
        *("picture that fits", "picture that does not fit"),
        *("picture that fits, chosen by the model", "picture that does not fit"),
    ]


@pytest.mark.parametrize(("size", "shown"), [(64, 64), (512, 192)])
def test_pictures_in_the_page(tmp_path, size, shown):
    page = page_of(tmp_path, ROWS, [decision(size=size)])
    source = next(value for _, name, value in page.attributes if name == "src")
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert image.size == (shown, shown)
    assert image.getpixel((3, 3)) == (200, 200, 200)


POINT = Point("dsd", "zero-shot", value=75, stderr=5, text="75", filled=False)


@pytest.mark.parametrize(
    ("value", "stderr", "reference", "limit", "low", "high"),
    [
        (75, 5, 50, 100, 50, 85),
        (99, 2, 50, 100, 50, 100),
        (40, 1, 50, 100, 38, 50),
        (50, 0, 50, 100, 50, 51),
        (-1, 0.5, 0, None, -2, 0),
    ],
)
def test_axis_holds_bars_and_reference(value, stderr, reference, limit, low, high):
    axis = axis_around([replace(POINT, value=value, stderr=stderr)], reference, limit=limit)
    assert (axis.low, axis.high) == (low, high)
    assert axis.ticks[0] == low
    assert axis.ticks[-1] == high
    assert len(axis.ticks) <= 10


def test_dot_and_bar_are_at_the_values():
    svg = track(POINT, Axis(low=50, high=90, step=10, reference=50))
    assert '<circle cx="62.50%"' in svg
    assert '<line class="bar" x1="37.50%" x2="87.50%"' in svg
    assert '<line class="reference" x1="0.00%"' in svg


def test_candidates_that_are_captions_are_named_under_the_picture(tmp_path):
    one = replace(decision(), other_caption="a <i>dog</i>")
    page = page_of(tmp_path, ROWS, [one])
    text = "".join(page.text)
    assert "a <i>dog</i>" in text and "does not fit0" not in text
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert alts[1].startswith("picture: a <i>dog</i>")


def test_each_metric_has_a_table_of_its_own(tmp_path):
    rows = [{**row(), "metric": metric} for metric in ("text", "group")]
    write_report(tmp_path, HEADER, rows)
    markdown = (tmp_path / "report.md").read_text()
    assert "| unseen, text | prompts |" in markdown and "| unseen, group | prompts |" in markdown


def test_markdown_says_what_was_run_and_what_methods_cost(tmp_path):
    write_report(tmp_path, {**HEADER, "passes": {"noise@30": 1200}}, ROWS)
    first, *_, last = (tmp_path / "report.md").read_text().strip().splitlines()
    assert first.startswith("Benchmark emoji <scenes>: weights ") and "minutes on" in first
    assert last == "Rows that an item sends through the UNet: `noise@30` 1,200."


def test_every_chart_has_the_chance_of_its_own_metric(tmp_path):
    """Of Winoground's scores, the group's is 1/6, not the others' 1/4."""
    chances = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
    rows = [row(metric=name, chance=chance) for name, chance in chances.items()]
    charts = means_section(by_split(rows)).split("<figure>")[1:]
    positions = [re.search(r'class="reference" x1="([0-9.]+)%"', chart)[1] for chart in charts]
    low = 10.0  # 1/6 rounded down to a tick of 10
    expected = [100 * (100 * chance - low) / (80 - low) for chance in chances.values()]
    np.testing.assert_allclose([float(x) for x in positions], expected, atol=0.01)


def test_means_are_over_items(tmp_path):
    text = "".join(page_of(tmp_path, ROWS).text)
    assert "mean over all items" in text and "mean over the kinds" not in text
