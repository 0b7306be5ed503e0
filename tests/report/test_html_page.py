"""The page of a report."""

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from dsd_jax.report import (
    Decision,
    HeldOutGain,
    LearningRun,
    RunDetails,
    Setting,
    Term,
    WordMap,
    report_files,
)
from tests.report.test_report_files import COMPARISON, HEADER, ROWS, row

VOID = {"meta", "br", "img"}
DETAILS = RunDetails(
    methods=[Term("dsd", "The paper's <score>.")],
    recipes=[Term("lora-256", "LoRA of rank 4, from 256 shots.")],
    learning=[
        LearningRun(
            "lora-256",
            0,
            {0: 0.7, 20: 0.5, 40: 0.6},
            20,
            [HeldOutGain("LoRA", kept=True, gain=0.2, error=0.05, items=51)],
        ),
        LearningRun("lora-4", 0, {}, 0),
    ],
    settings=[
        Setting("learn.lora.rank", "16", "4", "rank of LoRA"),
        Setting("data.name", "emoji", None, ""),
    ],
)


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
    sources = [value for _, name, value in page.attributes if name in ("src", "srcset")]
    assert len(sources) == 2
    links = [value for _, name, value in page.attributes if name == "href"]
    targets = {f"#{value}" for _, name, value in page.attributes if name == "id"}
    assert links and set(links) <= targets
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


@pytest.mark.parametrize(
    ("height", "width", "kind", "shown"),
    [(64, 64, "png", (64, 64)), (50, 100, "png", (100, 50)), (960, 640, "jpeg", (213, 320))],
)
def test_images_have_their_own_shape_and_are_never_enlarged(height, width, kind, shown):
    image = np.full((height, width, 3), 200, np.uint8)
    page = page_of(ROWS, [replace(decision(), positive=image)])
    source = next(value for _, name, value in page.attributes if name == "src")
    assert source.startswith(f"data:image/{kind};base64,")
    image = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
    assert image.size == shown
    assert image.getpixel((3, 3)) == (200, 200, 200)
    classes = [value for tag, name, value in page.attributes if (tag, name) == ("img", "class")]
    assert len(classes) == (2 if kind == "png" else 1)  # the other image has 64 pixels


def test_dot_and_bar_are_at_the_values():
    """The axis goes from chance, 50 %, to 90 %."""
    html = html_of([row(value=0.75, stderr=0.05), row("noise", value=0.85, stderr=0.025)])
    assert '<circle cx="62.50%"' in html
    assert '<line class="bar" x1="37.50%" x2="87.50%"' in html
    assert '<line class="reference" x1="0.00%"' in html


def test_candidates_that_are_captions_stand_beside_one_image():
    one = replace(decision(), other_caption="a <i>dog</i>")
    page = page_of(ROWS, [one])
    text = re.sub(r"\s+", " ", "".join(page.text))
    assert text.count("a <b>cat</b> & a dog 0.5 fits; the model's choice") == 1
    assert text.count("a <i>dog</i> 0.25 does not fit") == 1
    assert page.tags.count("img") == 1


def test_word_maps_stand_under_their_candidate():
    maps = [WordMap("<cat>", np.zeros((8, 8, 3), np.uint8))]
    page = page_of(ROWS, [replace(decision(), positive_maps=maps), decision()])
    alts = [value for _, name, value in page.attributes if name == "alt"]
    assert len(alts) == 5
    assert alts[1] == "where the model looks for the word <cat> in the image that fits"
    assert "Small images" in "".join(page.text)
    assert "Small images" not in "".join(page_of(ROWS, [decision()]).text)


def test_names_verdicts_and_settings_are_told():
    rows = [
        *ROWS,
        row("dsd", "lora-256", kept="lora 1/1"),
        row("dsd", "lora-4", refused="lora 1/1"),
    ]
    header = HEADER | {
        "date": "2026-11-28T07:10:44+00:00",
        "command": "python -m dsd_jax.train --config=a.py",
        "config": {"learn": {"lora": {"rank": 16, "kinds": ["lora"]}}},
    }
    page = Page(report_files(header, rows, details=DETAILS)["report.html"])
    text = re.sub(r"\s+", " ", "".join(page.text))
    assert "The paper's <score>." in text and "LoRA of rank 4, from 256 shots." in text
    assert "28 November 2026, 07:10 UTC" in text
    assert "python -m dsd_jax.train --config=a.py" in text
    assert "learn.lora.rankrank of LoRA 164" in text and "emojinone" in text
    assert 'learn.lora.rank = 16 learn.lora.kinds = ["lora"]' in text
    assert "lora-256 ✓ kept" in text and "lora-4 ✗ refused" in text
    assert "LoRA ✓ kept +0.200 ± 0.050" in text
    assert "lora-4, draw 0: too few shots" in text
    labels = [value for _, name, value in page.attributes if name == "aria-label"]
    assert any(label.endswith("lowest 0.500 at step 20, kept step 20") for label in labels)


def test_the_best_few_shot_row_is_one_that_kept_something():
    refused = row("noise", "lora-256", value=0.9, refused="lora 1/1")
    kept = row("dsd", "lora-256", value=0.8, kept="lora 1/1")
    rows = [row("noise", value=0.9), row(value=0.7), refused]
    text = re.sub(r"\s+", " ", "".join(page_of([*rows, kept]).text))
    assert "best few-shot 80.0 % ± 1.2 dsd, lora-256" in text
    text = "".join(page_of(rows).text)
    assert "nothing that was learned was kept" in text


def test_three_items_have_an_interval():
    three = row(value=1.0, stderr=0.0, n=3, interval=[0.4385, 1.0])
    text = "".join(page_of([three, row("noise", value=2 / 3, n=3)]).text)
    assert "100.0 (44–100)" in text and "100.0 ± 0.0 %" not in text
    assert "Wilson" in text


def test_headings_are_in_order():
    page = page_of(ROWS, [decision()], comparisons=[COMPARISON], details=DETAILS)
    levels = [int(tag[1]) for tag in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


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


def test_differences_of_zero_shot_rows_are_not_what_learning_changes():
    zero = {**COMPARISON, "prompts": None}
    text = "".join(page_of([row(), row("noise")], comparisons=[zero]).text)
    assert "Differences between rows" in text and "What learning changes" not in text
    assert "What learning changes" in "".join(page_of(ROWS, comparisons=[COMPARISON]).text)
