"""The demo in a browser: captions ranked, pairs learned, bad input, two visitors at once.

Debian's chromium, or the one of `playwright install chromium`; skipped where there is none. One
server for all, with the bundled model at one timestep.
"""

import asyncio
import gc
import re
import socket
import warnings
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from gradio.route_utils import delete_files_created_by_app
from PIL import Image
from playwright.sync_api import expect

import dsd_jax
from dsd_jax.web import demo_handlers, demo_page
from dsd_jax.web.demo_examples import examples
from dsd_jax.web.demo_server import serving

# Of Gradio: its queue keeps statistics in pandas as pandas no longer likes, and leaves loops open.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning:gradio"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]
PATIENCE = 120_000  # milliseconds; machines that test are crowded


@pytest.fixture(scope="module", autouse=True)
def collected():
    """Collect Gradio's open loops here, before their warnings are errors of other tests."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.set_event_loop(None)  # the last of them is this thread's
        gc.collect()


@pytest.fixture(scope="module")
def address(browser, quickly_compiled):
    with pytest.MonkeyPatch.context() as patch:
        for module in (demo_handlers, demo_page):
            patch.setattr(module, "TIMESTEPS", 1)
        called = []
        connect = socket.socket.connect
        patch.setattr(
            socket.socket,
            "connect",
            lambda self, to: (called.append(to), connect(self, to))[1],
        )
        with serving(dsd_jax.load("tiny")) as address:
            yield address
        elsewhere = [to for to in called if not str(to[0]).startswith(("127.", "::1", "localhost"))]
        assert not [to for to in elsewhere if isinstance(to, tuple)]  # nothing is told to anybody


@pytest.fixture
def visit(browser, address):
    """Return a function that opens the page as another visitor each time."""
    contexts = []

    def visit(width=1440, scheme="light"):
        contexts.append(
            browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        )
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENCE)
        page.foreign = []
        page.on(
            "request",
            lambda request: (
                request.url.startswith((address, "data:", "blob:"))
                or page.foreign.append(request.url)
            ),
        )
        page.goto(address)
        expect(page.locator("#answer .dsd-result")).to_be_visible(timeout=PATIENCE)
        return page

    yield visit
    for context in contexts:
        context.close()


def best(page):
    return page.locator("#answer h2")


def rank(page, *captions):
    page.locator("#captions textarea").fill("\n".join(captions))
    page.get_by_role("button", name="Rank captions").click()


def answers(page, text):
    expect(page.locator("#answer")).to_contain_text(text, timeout=PATIENCE)


def teach(page):
    """Learn the attention score's weights from the example pairs."""
    page.get_by_role("tab", name="Teach").click()
    page.locator("#fill").click()
    expect(page.locator("#pairs")).to_contain_text("ready", timeout=PATIENCE)
    page.locator("#kind input").nth(1).check()
    page.locator("#learn").click()
    expect(page.locator("#lesson h2")).to_be_visible(timeout=PATIENCE)
    return page.locator("#lesson")


def test_pictures_of_the_page_itself_outlive_old_uploads(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    model = SimpleNamespace(name="other")
    handlers = demo_handlers.DemoHandlers(model, {}, examples(), tmp_path)
    page = demo_page.make_page(handlers)
    before = sorted((tmp_path / "cache").rglob("*.png"))
    delete_files_created_by_app(page, age=0)
    assert len(before) == 4 and sorted((tmp_path / "cache").rglob("*.png")) == before


def test_the_page_shows_what_it_does_before_anything_is_asked(visit):
    page = visit()
    expect(best(page)).to_have_text("a cat to the left of an apple")
    assert page.locator("#answer .dsd-maps img").count() == 6
    assert page.title() == demo_page.TITLE
    assert not page.foreign


def test_captions_of_an_upload_are_ranked(visit, tmp_path):
    page = visit()
    handlers_image = demo_handlers.example_pairs(1)
    handlers_image.images[0].save(tmp_path / "mine.png")
    page.get_by_role("button", name="Remove Image").click()
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "mine.png")
    answers(page, "Now write its captions")
    rank(page, handlers_image.captions[0], "a lion")
    expect(best(page)).to_have_text(handlers_image.captions[0], timeout=PATIENCE)
    expect(page.locator(".dsd-ranking > li")).to_have_count(2)
    answers(page, "relative, 1 timestep, model tiny")


def test_an_example_is_ranked_by_a_click(visit):
    page = visit()
    page.get_by_role("button", name="What is it?").click()
    answers(page, "a penguin")
    expect(page.locator(".dsd-ranking > li")).to_have_count(4)


def test_a_file_that_is_no_image_is_refused_in_a_sentence(visit, tmp_path):
    page = visit()
    (tmp_path / "notes.png").write_text("these are notes")
    page.get_by_role("button", name="Remove Image").click()
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "notes.png")
    expect(page.get_by_role("alert")).to_contain_text("'notes.png'", timeout=PATIENCE)
    assert page.locator("#picture img").count() == 0
    page.get_by_role("button", name="Left or right?").click()  # and the server goes on
    expect(best(page)).to_have_text("a cat to the left of an apple", timeout=PATIENCE)


def test_a_file_that_is_too_large_is_refused(visit, tmp_path):
    page = visit()
    noise = np.random.default_rng(0).integers(0, 255, (2000, 2000, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    page.get_by_role("button", name="Remove Image").click()
    page.locator("#picture input[type=file]").set_input_files(tmp_path / "large.png")
    toast = page.get_by_text(re.compile("maximum allowed size of 10")).first
    expect(toast).to_be_visible(timeout=PATIENCE)


def test_what_is_missing_is_said(visit):
    page = visit()
    rank(page, "")
    answers(page, "There is no caption")
    page.get_by_role("tab", name="Teach").click()
    page.locator("#learn").click()
    expect(page.locator("#lesson")).to_contain_text("There are 0 pictures", timeout=PATIENCE)


def test_a_fault_of_the_program_is_a_sentence_and_the_next_request_is_answered(
    visit, monkeypatch, capfd
):
    page = visit()
    with monkeypatch.context() as patch:
        patch.setattr(demo_handlers, "rank_captions", lambda *_: 1 / 0)
        rank(page, "a cat", "a dog")
        answers(page, "Something went wrong in the program")
    assert "ZeroDivisionError" in capfd.readouterr().err
    rank(page, "a cat", "a dog")
    answers(page, "Fits best")


def test_what_one_visitor_learns_another_one_does_not_have(visit):
    one, other = visit(), visit()
    expect(teach(one)).to_contain_text("Learned")
    with one.expect_download() as download:
        one.get_by_role("link", name="Download").or_(
            one.get_by_role("button", name="Download")
        ).first.click()
    assert zipfile.ZipFile(download.value.path()).testzip() is None
    one.get_by_role("tab", name="Rank").click()
    rank(one, "a cat", "a dog")
    rank(other, "an owl", "a pig", "a fox")
    answers(one, "prompts learned here")
    expect(one.locator(".dsd-ranking > li")).to_have_count(2)
    answers(other, "an owl")
    expect(other.locator("#answer")).not_to_contain_text("learned here")
    expect(other.locator(".dsd-ranking > li")).to_have_count(3)
    other.get_by_role("button", name="Settings").first.click()
    other.locator("#prompts input").click()
    expect(other.get_by_role("option")).to_have_count(1)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1440])
def test_the_page_is_accessible_and_fits(visit, width, scheme):
    page = visit(width, scheme)
    for tab in ("Rank captions", "Teach it"):
        page.get_by_role("tab", name=tab).click()
        page.get_by_role("button", name="Settings").locator("visible=true").click()
        found = Axe().run(page).response["violations"]
        serious = [each for each in found if each["impact"] in ("serious", "critical")]
        assert not [(each["id"], each["nodes"][0]["html"]) for each in serious]
        assert page.evaluate("document.documentElement.scrollWidth") <= width
