"""`match`: the scores of `match_scores`, and how they show themselves."""

import re

import numpy as np
import pytest
from PIL import Image

import dsd_jax
from dsd_jax.errors import UserError
from dsd_jax.matching.match_result import MatchResult
from tests.random_model import random_model

CAPTIONS = ("a cat", "a dog & a <b>bone</b>", "a fish")
SCORES = np.array([[0.1, 0.4, 0.2], [2.0, 1.0, -1.0]], np.float32)


def result(scores=SCORES, captions=CAPTIONS) -> MatchResult:
    scores = np.asarray(scores, np.float32)
    images = tuple(Image.new("RGB", (40, 20), color) for color in ("red", "blue") * 30)
    count = len(scores)
    names = tuple(f"{i}.png" for i in range(count))
    return MatchResult(scores, images[:count], captions, names, "dsd", 10, 0, "tiny")


def text_of(html: str) -> str:
    return " ".join(re.sub(r"<style>.*?</style>|<[^>]+>", " ", html, flags=re.DOTALL).split())


def test_scores_are_those_of_match_scores(tmp_path):
    model, rng = random_model(), np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (12, 20, 3), np.uint8) for _ in range(2)]
    Image.fromarray(pixels[1]).save(tmp_path / "b.png")
    images = [pixels[0], tmp_path / "b.png"]
    options = {"method": "relative", "timesteps": 1, "seed": 3, "chunk": 2}
    found = dsd_jax.match(model, images, ["a cat", "a dog"], **options)
    expected = dsd_jax.match_scores(model, images, ["a cat", "a dog"], **options)
    np.testing.assert_array_equal(found.scores, expected)
    assert (found.method, found.timesteps, found.seed) == ("relative", 1, 3)
    assert found.names == ("image 1", "b.png") and found.captions == ("a cat", "a dog")
    assert [image.size for image in found.images] == [(20, 12)] * 2


def test_best_and_margins():
    found = result()
    assert found.best.tolist() == [1, 0]
    np.testing.assert_allclose(found.margins, [0.2, 1.0], rtol=1e-6)
    single = result(SCORES[:, :1], CAPTIONS[:1])
    assert single.best.tolist() == [0, 0] and np.isnan(single.margins).all()


def test_a_terminal_gets_a_table_that_marks_the_best():
    title, note, _, head, *lines = repr(result()).splitlines()
    assert title == "dsd scores by tiny, 10 timesteps, seed 0"
    assert note == "(higher fits better; * best caption of the image)"
    assert head.split() == ["caption", "0.png", "1.png"]
    assert lines[0].split() == ["a", "cat", "0.100", "2.00*"]
    assert lines[1].split()[-2:] == ["0.400*", "1.00"]


def test_a_terminal_gets_no_more_than_it_can_show():
    text = repr(result(np.zeros((50, 3))))
    assert "and 30 more images" in text and len(text.splitlines()) < 40


def test_a_notebook_gets_captions_ranked_for_each_image():
    html = result()._repr_html_()
    assert html.count("data:image/webp;base64,") == 2
    text = text_of(html)
    assert text.index("a dog &amp; a &lt;b&gt;bone&lt;/b&gt; 0.400 +0.200") < text.index("a fish")
    assert text.index("a cat 2.00 +1.00") < text.rindex("a fish -1.00")
    assert html.count('class="dsd-best"') == 2
    widths = [float(width) for width in re.findall(r"width: ([\d.]+)%\"", html)]
    np.testing.assert_allclose(widths, [10, 3.3, 0, 100, 66.7, 0])


def test_one_caption_ranks_the_images():
    html = result([[0.1], [0.3]], ("a cat",))._repr_html_()
    assert text_of(html).index("1.png 0.300 +0.200") < text_of(html).index("0.png 0.100")
    assert html.count("data:image/webp;base64,") == 2 and html.count("dsd-best") > 1
    assert "dsd-best" not in result([[0.1]], ("a cat",))._repr_html_().partition("</style>")[2]


def test_a_notebook_gets_the_first_of_many():
    many = result(np.random.default_rng(0).normal(size=(50, 3)))
    assert many._repr_html_().count("<figure>") == 20
    assert "and 30 more images" in many._repr_html_()
    captions = tuple(f"caption {i}" for i in range(50))
    wide = result(np.zeros((1, 50)), captions)._repr_html_()
    assert "and 30 more" in wide and "caption 20" not in wide


def test_a_figure_shows_images_and_bars():
    figure = result().plot()
    pictures = [axes for axes in figure.axes if axes.images]
    bars = [[bar.get_width() for bar in axes.patches] for axes in figure.axes if axes.patches]
    assert len(pictures) == 2
    np.testing.assert_allclose(bars, [[0.1, 1 / 30, 0], [1, 2 / 3, 0]], atol=1e-6)
    assert figure._repr_png_().startswith(b"\x89PNG")
    texts = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    assert [text for text in texts if text.startswith("✓")] == ["✓ " + CAPTIONS[1], "✓ a cat"]


def test_a_figure_needs_no_global_state():
    import sys

    result([[0.1], [0.3]], ("a cat",)).plot()
    pyplot = sys.modules.get("matplotlib.pyplot")
    assert pyplot is None or not pyplot.get_fignums()


def test_pandas_gets_names_and_captions():
    table = result().to_pandas()
    assert table.loc["1.png", "a cat"] == 2.0 and table.shape == (2, 3)


def test_pandas_that_is_missing_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UserError, match="to_pandas needs pandas, which is not installed: pip"):
        result().to_pandas()


def test_mistakes():
    with pytest.raises(UserError, match="images is one image; put it in a list"):
        dsd_jax.match(random_model(), "docs/cat-left.png", ["a cat"])
    with pytest.raises(UserError, match="caption 1 is empty"):
        dsd_jax.match(random_model(), ["docs/cat-left.png"], [" "])
