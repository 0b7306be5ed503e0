"""The page of a report."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from dsd_jax.report import Decision, report_files
from dsd_jax.report.html_page import Chart, Point, axis_around
from tests.report.test_report_files import COMPARISON, HEADER, ROWS, row

VOID = {"meta", "br", "img"}


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


def html_of(*args, **kwargs) -> str:
    return report_files(HEADER, *args, **kwargs)["report.html"]


def page_of(*args, **kwargs) -> Page:
    return Page(html_of(*args, **kwargs))


def test_page_needs_nothing_from_outside():
    page = page_of(ROWS, [decision()], comparisons=[COMPARISON])
    assert {"script", "link", "iframe", "object"}.isdisjoint(page.tags)
    sources = [value for _, name, value in page.attributes if name in ("src", "href", "srcset")]
    assert len(sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    text = html_of(ROWS, [decision()], comparisons=[COMPARISON])
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    assert "default-src 'none'" in text


def test_page_shows_all_numbers():
    page = page_of(ROWS, [decision()], comparisons=[COMPARISON])
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


def test_headline_has_the_best_of_each():
    rows = [row(value=0.7), row("noise", value=0.8), row("dsd", "lora-16", value=0.6)]
    text = re.sub(r"\s+", " ", "".join(page_of(rows).text))
    assert (
        "best zero-shot 80.0 % ± 1.2 noise (of 2 rows) best few-shot 60.0 % ± 1.2 dsd, lora-16"
        in text
    )


def test_page_of_rows_without_means_or_few_shot():
    assert "best few-shot" not in "".join(page_of([row()]).text)
    assert "dashed: chance" not in "".join(page_of([row(kind="size")]).text)


def test_decisions_are_shown_with_scores_and_verdict():
    page = page_of(ROWS, [decision(), decision(0.2, 0.3), decision(0.3, 0.3)])
    text = "".join(page.text)
    assert text.count("a <b>cat</b> & a dog") == 3
    assert text.count("✓ right") == 1
    assert text.count("✗ wrong") == 2  # a tie is not right
    chosen = [value for tag, name, value in page.attributes if (tag, name) == ("figure", "class")]
    assert chosen == ["chosen", "chosen"]  # nothing is chosen in a tie
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert alts == [
        *("image that fits", "image that does not fit, chosen by the model"),
        *("image that fits", "image that does not fit"),
        *("image that fits, chosen by the model", "image that does not fit"),
    ]


@pytest.mark.parametrize(("size", "shown"), [(64, 64), (512, 192)])
def test_images_in_the_page(size, shown):
    page = page_of(ROWS, [decision(size=size)])
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
    point = POINT._replace(value=value, stderr=stderr)
    axis = axis_around([Chart("unseen", [point], reference)], limit=limit)
    assert (axis.low, axis.high) == (low, high)
    assert axis.ticks[0] == low
    assert axis.ticks[-1] == high
    assert len(axis.ticks) <= 10


def test_dot_and_bar_are_at_the_values():
    """The axis goes from chance, 50 %, to 90 %."""
    html = html_of([row(value=0.75, stderr=0.05), row("noise", value=0.85, stderr=0.025)])
    assert '<circle cx="62.50%"' in html
    assert '<line class="bar" x1="37.50%" x2="87.50%"' in html
    assert '<line class="reference" x1="0.00%"' in html


def test_candidates_that_are_captions_are_named_under_the_image():
    one = replace(decision(), other_caption="a <i>dog</i>")
    page = page_of(ROWS, [one])
    text = "".join(page.text)
    assert "a <i>dog</i>" in text and "does not fit0" not in text
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert alts[1].startswith("image: a <i>dog</i>")


def test_every_chart_has_the_chance_of_its_own_metric():
    """Of Winoground's scores, the group's is 1/6, not the others' 1/4."""
    chances = {"text": 1 / 4, "image": 1 / 4, "group": 1 / 6}
    rows = [row(metric=name, chance=chance) for name, chance in chances.items()]
    charts = html_of(rows).split("<figure>")[1:]
    positions = [re.search(r'class="reference" x1="([0-9.]+)%"', chart)[1] for chart in charts]
    low = 10.0  # 1/6 rounded down to a tick of 10
    expected = [100 * (100 * chance - low) / (80 - low) for chance in chances.values()]
    np.testing.assert_allclose([float(x) for x in positions], expected, atol=0.01)


def test_means_are_over_items():
    text = "".join(page_of(ROWS).text)
    assert "mean over all items" in text and "mean over the kinds" not in text
