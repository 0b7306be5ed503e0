"""Explanations draw themselves: words over the image, at its own size and shape."""

import io

import numpy as np
import pytest
from PIL import Image

import dsd_jax
from dsd_jax.errors import UserError
from dsd_jax.matching.explanation import Decision, Explanation
from dsd_jax.matching.plot_heatmaps import Scale, overlay

WORDS = ["a", "cat", "on", "grass", ","]
SPECIAL = {name: np.full((8, 8), 0.3, np.float32) for name in ("start", "end", "padding")}


def explanation(size=(60, 40), decision=None) -> Explanation:
    maps = np.random.default_rng(0).random((len(WORDS), *size[::-1])).astype(np.float32) / 10
    image = Image.new("RGB", size, "teal")
    return Explanation(image, "a cat on grass,", WORDS, maps, SPECIAL, "tiny", 10, decision)


def titles(figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def widths(figure) -> dict[str, float]:
    figure.draw_without_rendering()
    shown = [axes for axes in figure.axes if axes.get_title()]
    return {axes.get_title(): axes.get_position().width for axes in shown}


def test_it_unpacks_into_words_and_maps():
    words, maps = explanation()
    assert words == WORDS and maps.shape == (5, 40, 60)


def test_content_words_are_large_and_stop_words_small():
    figure = explanation().plot()
    assert titles(figure) == ["the image", "cat", "grass", "a", "on", ","]
    sizes = widths(figure)
    assert sizes["cat"] > 1.7 * sizes["on"]
    assert abs(sizes["cat"] - sizes["the image"]) < 0.01


def test_stop_words_and_special_tokens_on_request():
    assert titles(explanation().plot(stop_words="hidden")) == ["the image", "cat", "grass"]
    sizes = widths(explanation().plot(stop_words="large"))
    assert sizes["on"] > 0.95 * sizes["cat"]
    special = titles(explanation().plot(stop_words="hidden", special_tokens=True))
    assert special[3:] == ["<start>", "<end>", "<padding>"]
    with pytest.raises(UserError, match="stop_words is 'tiny'; expected one of small, large, hid"):
        explanation().plot(stop_words="tiny")


@pytest.mark.parametrize("size", [(60, 40), (40, 90)])
def test_pictures_keep_their_shape(size):
    figure = explanation(size).plot()
    for axes in figure.axes:
        for drawn in axes.get_images():
            assert drawn.get_array().shape[:2] == size[::-1]
    figure = explanation((2000, 1000)).plot()
    assert figure.axes[0].get_images()[0].get_array().shape[:2] == (320, 640)


def test_one_scale_for_all_words_that_says_what_it_is():
    for scale, high in (("contrast", None), ("share", 10.0)):
        figure = explanation().plot(scale=scale)
        (bar,) = [axes for axes in figure.axes if axes.get_xlabel()]
        assert "attention" in bar.get_xlabel()
        content = explanation().maps[[1, 3]]
        expected = high or (content / content.mean((1, 2), keepdims=True)).max()
        assert bar.get_xlim()[0] == 0 and abs(bar.get_xlim()[1] - expected) < 0.1


def test_a_decision_has_a_panel_and_a_scale_of_its_own():
    heat = np.linspace(-0.01, 0.02, 2400).reshape(40, 60)
    figure = explanation(decision=Decision("a dog", "relative", heat, heat.sum())).plot()
    assert titles(figure)[:3] == ["the image", "why", "cat"]
    assert len([axes for axes in figure.axes if axes.get_xlabel()]) == 2
    assert "relative score +12 for 'a cat on grass,' rather than 'a dog'" in " ".join(
        figure.get_suptitle().split()
    )
    with pytest.raises(UserError, match="rather_than="):
        _ = explanation().difference


def test_a_decision_is_red_for_the_caption_and_blue_for_the_other():
    heat = np.zeros((40, 60), np.float32)
    heat[:, :20], heat[:, 40:] = 1.0, -1.0
    image = Image.new("RGB", (60, 40), "gray")
    drawn = overlay(image, heat, Scale("", -1.0, 1.0, signed=True)).astype(int)
    red, middle, blue = drawn[20, 5], drawn[20, 30], drawn[20, 55]
    assert red[0] - red[2] > 60 and blue[2] - blue[0] > 60
    assert np.ptp(middle) < 3


def test_it_is_saved_as_its_ending_says(tmp_path):
    explained = explanation()
    for name in ("a.png", "a.pdf", "a.svg", "a.webp"):
        explained.save(tmp_path / name, stop_words="hidden")
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(tmp_path / "a.png") as image:
        assert image.width > 3 * 200
    with pytest.raises(UserError, match="a.gif has no ending of a picture; expected one of .png"):
        explained.save(tmp_path / "a.gif")


def test_a_notebook_gets_a_picture_with_words_for_those_who_do_not_see_it():
    explained = explanation()
    with Image.open(io.BytesIO(explained._repr_png_())) as image:
        assert image.format == "PNG"
    html = explained._repr_html_()
    assert 'src="data:image/png;base64,' in html and "of attention" in html.partition("src=")[0]


def test_a_terminal_gets_the_places_of_the_words():
    first, *lines = repr(explanation()).splitlines()
    assert first == "'a cat on grass,' in an image of 60x40:"
    assert [line.split()[0] for line in lines] == ["cat", "grass"]
    assert "most at (" in lines[0]


def test_special_tokens_take_the_rest_of_the_attention():
    explained = dsd_jax.explain(
        dsd_jax.load("tiny"), "docs/cat-left.png", "a cat", timesteps=1, layers="all"
    )
    rest = sum(heat.mean() for heat in explained.special.values())
    assert abs(rest + explained.maps.mean((1, 2)).sum() - 1) < 0.02
