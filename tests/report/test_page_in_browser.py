"""The page of a report in a browser: accessible, nothing cut off, on a phone, a desk and paper.

Debian's chromium, or the one of `playwright install chromium`; skipped where there is none.
"""

from dataclasses import replace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from dsd_jax.report import WordMap, report_files
from tests.report.test_html_page import DETAILS, decision
from tests.report.test_report_files import COMPARISON, HEADER, ROWS, row

PATH = "/home/someone/with/a/long/name/" + "runs/" * 20 + "prompts/adapted-256/seed-0"
WIDTHS = (360, 1440)


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    maps = [WordMap(word, np.full((64, 64, 3), 90, np.uint8)) for word in ("cat", "left", "apple")]
    shown = [
        replace(decision(), positive_maps=maps, negative_maps=maps),
        replace(decision(0.2, 0.3, size=300), other_caption="a dog " * 20, positive_maps=maps),
    ]
    rows = [
        *ROWS,
        row("itm", value=1.0, stderr=0.0, n=3, interval=[0.44, 1.0]),
        row("itm", PATH, kept="lora 1/1"),
        row("dsd", "lora-256", kept="lora 2/3", refused="lora 1/3"),
        row("dsd", "lora-16", refused="lora 3/3"),
    ]
    header = HEADER | {
        "date": "2026-11-28T07:10:44+00:00",
        "command": f"python -m dsd_jax.evaluate --config=a.py --prompts={PATH}",
        "config": {"learn": {"lora": {"rank": 16}}},
    }
    files = report_files(header, rows, shown, [COMPARISON], details=DETAILS)
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(files["report.html"], "utf-8")
    return file


@pytest.fixture
def open_page(browser, page_file):
    contexts = []

    def open_page(width, scheme="light", **options):
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": 900}, color_scheme=scheme, **options
            )
        )
        page = contexts[-1].new_page()
        page.goto(page_file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_a_checker_of_accessibility_finds_nothing(open_page, width, scheme):
    found = Axe().run(open_page(width, scheme, bypass_csp=True))
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_is_wider_than_the_screen(open_page, width):
    page = open_page(width)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_first_column_stays_in_sight(open_page):
    page = open_page(360)
    left = page.evaluate(
        """() => {
            const box = [...document.querySelectorAll('.scroll')]
                .find(box => box.scrollWidth > box.clientWidth);
            box.scrollLeft = 100;
            const cell = box.querySelector('tbody th').getBoundingClientRect();
            return [cell.left - box.getBoundingClientRect().left, box.scrollLeft];
        }"""
    )
    assert left == [0, 100]


def test_the_keyboard_reaches_links_tables_and_settings(open_page):
    page = open_page(1440)
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate(
                "[document.activeElement.tagName, getComputedStyle(document.activeElement)"
                ".outlineStyle]"
            )
        )
    assert {"A", "DIV", "PRE", "SUMMARY"} <= {tag for tag, _ in reached}
    assert all(style == "solid" for tag, style in reached if tag != "BODY")


def test_paper_has_light_colors_and_all_of_it(open_page):
    page = open_page(720, "dark")  # A4 less its margins, at 96 pixels an inch
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert dark != "rgb(255, 255, 255)"
    assert page.evaluate("document.documentElement.scrollWidth") == 720
    assert page.evaluate("document.querySelector('details pre').getBoundingClientRect().height") > 0
