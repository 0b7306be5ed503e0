"""Answers of the demo as HTML: rankings with maps of words, lessons and messages."""

import base64
import io
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader
from matplotlib import colormaps
from PIL import Image

from dsd_jax.io.figures import png_bytes
from dsd_jax.matching.explanation import is_stop_word
from dsd_jax.matching.ranking import rankings_of
from dsd_jax.web.demo_requests import Lesson, RankedCaptions, WordMaps

TILE = 112  # longest side of a map on the page, in pixels; files hold twice as many


@dataclass(frozen=True)
class Tile:
    """A word's map on the page: the image with the map over it, as a `data:` URL."""

    word: str
    url: str
    width: int
    height: int


def ranking_html(ranked: RankedCaptions) -> str:
    """Return a ranking as a fragment of HTML."""
    result = ranked.result
    (ranking,) = rankings_of(result.scores, result.images, result.captions, result.names)
    image = result.images[0]
    return _render(
        "result.html.jinja",
        ranking=ranking,
        maps={result.captions[i]: _tiles(image, maps) for i, maps in ranked.maps.items()},
        notes=ranked.notes,
        facts=f"{result.method}, {_count(result.timesteps, 'timestep')}, model {result.model}"
        f"{', prompts ' + ranked.prompts if ranked.prompts else ''}, {ranked.seconds:.1f} s.",
    )


def lesson_html(lesson: Lesson) -> str:
    """Return what was learned as a fragment of HTML."""
    prompts = lesson.prompts
    kept = bool(prompts.params)
    return _render(
        "lesson.html.jinja",
        kept=kept,
        headline=prompts.summary if kept else "The model stays as it was",
        verdict=f"{prompts.verdict[:1].upper()}{prompts.verdict[1:]}.",
        curve=_data_url(png_bytes(prompts.plot()), "png") if prompts.history.losses else "",
        notes=lesson.notes,
        facts=_lesson_facts(lesson, kept),
    )


def _lesson_facts(lesson: Lesson, kept: bool) -> str:
    took = f"{_count(lesson.pairs, 'pair')}, {lesson.seconds:.0f} s."
    if kept:
        return f"{took} Captions are now ranked with it; the settings there take you back."
    return f"{took} More pairs, or wrong captions that differ in one word, give it more to learn."


def error_html(text: str) -> str:
    """Return an error as a fragment of HTML that screen readers read out."""
    return _render("message.html.jinja", kind="dsd-error", text=text)


def hint_html(text: str) -> str:
    """Return what to do first, as a fragment of HTML."""
    return _render("message.html.jinja", kind="dsd-hint", text=text)


def header_html(title: str, text: str) -> str:
    """Return the page's header."""
    return f"<header><h1>{escape(title)}</h1><p>{escape(text)}</p></header>"


def label_html(text: str) -> str:
    """Return the label of a group of buttons."""
    return f"<p>{escape(text)}</p>"


def status_html(text: str) -> str:
    """Return a line that screen readers read out when it changes."""
    return f'<p role="status">{escape(text)}</p>'


def _tiles(image: Image.Image, maps: WordMaps) -> list[Tile]:
    """Return the maps of a caption's words that name something, on one scale of colors.

    It is the attention that a pixel gives to a word as a multiple of the word's average.
    """
    pairs = list(zip(maps.words, maps.maps, strict=True))
    pairs = [(word, heat) for word, heat in pairs if not is_stop_word(word)] or pairs
    contrasts = [(word, heat / max(float(heat.mean()), 1e-12)) for word, heat in pairs]
    high = max(float(heat.max()) for _, heat in contrasts)
    return [_tile(image, word, heat / (high or 1.0)) for word, heat in contrasts]


def _tile(image: Image.Image, word: str, heat: np.ndarray) -> Tile:
    """Draw a map of values from 0 to 1 over an image in gray."""
    scale = TILE / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    size = 2 * width, 2 * height  # for sharp screens
    gray = np.asarray(image.convert("L").resize(size), np.float32)[..., None]
    heat = np.asarray(Image.fromarray(heat.astype(np.float32)).resize(size)).clip(0, 1)
    color = 255 * colormaps["inferno"](heat)[..., :3]
    pixels = (0.4 * gray + 0.6 * color).clip(0, 255).astype(np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "WEBP", quality=85)
    return Tile(word, _data_url(content.getvalue(), "webp"), width, height)


def _data_url(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _render(template: str, **values: Any) -> str:
    loader = PackageLoader("dsd_jax.web", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.get_template(template).render(values)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
