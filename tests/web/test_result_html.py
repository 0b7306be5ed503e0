"""What the demo answers: rankings, lessons and errors, in which nothing a visitor wrote is HTML."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.matching.match_result import MatchResult
from dsd_jax.web.demo_requests import RankedCaptions, WordMaps
from dsd_jax.web.result_html import error_html, ranking_html, status_html

EVIL = "<img src=x onerror=alert(1)>"


def ranked(captions=("a cat", "a dog"), scores=(1.0, 3.0), words=("a", "dog"), notes=()):
    result = MatchResult(
        np.array([scores], np.float32),
        (Image.new("RGB", (60, 30), "red"),),
        captions,
        ("image 1",),
        "relative",
        10,
        0,
        "tiny",
    )
    heat = np.linspace(0, 1, len(words) * 30 * 60).reshape(len(words), 30, 60)
    return RankedCaptions(result, {1: WordMaps(words, heat)}, "", 1.25, notes)


def test_a_ranking_has_the_best_first_and_maps_of_words_that_name_something():
    html = ranking_html(ranked())
    assert html.index("<h2>a dog</h2>") < html.index("a cat")
    assert html.index("3.0") < html.index("1.0")
    assert html.count("<img") == 1 and 'alt="Map of dog"' in html
    assert 'width="112" height="56"' in html
    assert "relative, 10 timesteps, model tiny, 1.2 s." in html


def test_a_caption_of_small_words_alone_has_their_maps():
    assert ranking_html(ranked(words=("of", "the"))).count("<img") == 2


def test_maps_of_a_caption_share_a_scale():
    heat = np.stack([np.full((30, 60), 0.0), np.full((30, 60), 1.0)])
    answer = ranked(words=("cat", "dog"))
    answer.maps[1] = WordMaps(("cat", "dog"), heat)
    urls = [part.split('"')[0] for part in ranking_html(answer).split('src="')[1:]]
    assert urls[0] != urls[1]


def test_one_caption_is_not_called_the_best():
    html = ranking_html(RankedCaptions(ranked(("a cat",), (1.0,)).result, {}, "", 1.0))
    assert "Fits best" not in html and "write another one" in html


@pytest.mark.parametrize(
    "html",
    [
        error_html(f"caption '{EVIL}' has no words."),
        status_html(EVIL),
        ranking_html(ranked((EVIL, "a dog"), words=(EVIL,), notes=(EVIL,))),
    ],
)
def test_what_a_visitor_wrote_is_text(html):
    assert EVIL not in html and "&lt;img" in html


def test_an_error_is_read_out():
    assert 'role="alert"' in error_html("It went wrong.")
