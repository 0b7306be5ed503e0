"""Rankings of captions for each image, as HTML for a notebook and as a figure."""

import base64
import io
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dsd_jax.matching.score_table import score_digits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL = 128  # side in a notebook, in pixels; files hold twice as many for sharp screens
SHOWN = 20  # rankings, and candidates of each; the scores hold all
_LABEL_WIDTH = 44  # letters of a line of a candidate's text in a figure


@dataclass(frozen=True)
class Candidate:
    """A caption of an image, or an image for the only caption.

    Attributes:
        label: the caption, or the image's name.
        image: the image, where images are ranked.
        score: as the method gives it.
        share: how far it is above the lowest of its ranking, as a part of the largest such distance
            in all rankings: 0 to 1.
        best: whether no other of its ranking has a higher score.
    """

    label: str
    image: Image.Image | None
    score: float
    share: float
    best: bool


@dataclass(frozen=True)
class Ranking:
    """Candidates from best to worst.

    Attributes:
        label: the image's name, or the caption that images are ranked for.
        image: the image whose captions are ranked, if they are.
        candidates: from best to worst.
        digits: after the point, with which their scores differ.
        more: how many further candidates there are.
    """

    label: str
    image: Image.Image | None
    candidates: tuple[Candidate, ...]
    digits: int
    more: int = 0

    @property
    def margin(self) -> str:
        """The lead of the best over the next, as text; empty for one candidate."""
        if len(self.candidates) < 2:
            return ""
        return f"{self.candidates[0].score - self.candidates[1].score:+.{self.digits}f}"


def rankings_of(
    scores: np.ndarray,
    images: Sequence[Image.Image],
    captions: Sequence[str],
    names: Sequence[str],
) -> list[Ranking]:
    """Return a ranking of captions for each image, or of images if there is one caption.

    Args:
        scores: (I, C).
        images, names: I each.
        captions: C texts.
    """
    titles, labels = list(names), list(captions)
    shown: list[Image.Image | None] = list(images)
    options: list[Image.Image | None] = [None] * len(captions)
    if len(captions) == 1 and len(images) > 1:
        scores, titles, labels = scores.T, labels, titles
        shown, options = options, shown
    widest = float(np.ptp(scores, axis=1).max()) or 1.0
    return [
        _ranking(
            title, image, row, shares=(row - row.min()) / widest, labels=labels, images=options
        )
        for title, image, row in zip(titles, shown, scores, strict=True)
    ]


def _ranking(
    label: str,
    image: Image.Image | None,
    scores: np.ndarray,
    *,
    shares: np.ndarray,
    labels: Sequence[str],
    images: Sequence[Image.Image | None],
) -> Ranking:
    order = [int(i) for i in np.argsort(-scores, kind="stable")]
    several = len(scores) > 1
    candidates = tuple(
        Candidate(labels[i], images[i], float(scores[i]), float(shares[i]), several and not place)
        for place, i in enumerate(order[:SHOWN])
    )
    return Ranking(label, image, candidates, score_digits(scores), len(order) - len(candidates))


def ranking_html(title: str, rankings: Sequence[Ranking]) -> str:
    """Return a fragment of HTML that shows rankings with thumbnails, light or dark as its page.

    Args:
        title: what was scored, and how.
        rankings: of which the first `SHOWN` are shown.
    """
    from jinja2 import Environment, PackageLoader  # only notebooks show HTML

    loader = PackageLoader("dsd_jax.matching", "")
    environment = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"thumbnail": thumbnail_url, "fit": _fit}
    return environment.get_template("ranking.html.jinja").render(
        title=title, rankings=rankings[:SHOWN], more=len(rankings) - SHOWN, side=THUMBNAIL
    )


def thumbnail_url(image: Image.Image) -> str:
    """Return a small copy of an image as a `data:` URL."""
    small = image.copy()
    small.thumbnail((2 * THUMBNAIL, 2 * THUMBNAIL))
    content = io.BytesIO()
    small.save(content, "WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def _fit(image: Image.Image, side: int) -> tuple[int, int]:
    """Return the width and height of an image whose longer side is `side`."""
    scale = side / max(image.size)
    return max(1, round(image.width * scale)), max(1, round(image.height * scale))


def ranking_figure(title: str, rankings: Sequence[Ranking]) -> "Figure":
    """Draw rankings: each image, and beside it bars for its captions; arguments as above."""
    from dsd_jax.io.figures import SOFT, new_figure

    shown = rankings[:SHOWN]
    heights = [_height(ranking) for ranking in shown]
    figure = new_figure(9.0, sum(heights) + 0.5)
    figure.suptitle(title, fontsize=10, color=SOFT, x=0.01, ha="left")
    grid = figure.add_gridspec(len(shown), 2, width_ratios=[1, 4.2], height_ratios=heights)
    for row, ranking in enumerate(shown):
        images = [ranking.image] if ranking.image else [c.image for c in ranking.candidates]
        cells = grid[row, 0].subgridspec(len(images), 1)
        for place, image in enumerate(images):
            picture = figure.add_subplot(cells[place])
            picture.imshow(np.asarray(image))
            picture.set_axis_off()
        _draw_bars(figure.add_subplot(grid[row, 1]), ranking)
    return figure


def _height(ranking: Ranking) -> float:
    """Return the height of a ranking in inches."""
    if not ranking.image:
        return 0.7 * len(ranking.candidates) + 0.4
    lines = sum(len(textwrap.wrap(c.label, _LABEL_WIDTH)) + 0.5 for c in ranking.candidates)
    return max(1.2, 0.19 * lines + 0.5)


def _draw_bars(axes: Any, ranking: Ranking) -> None:
    """Draw a bar for each candidate, the best on top, and its score behind it."""
    from dsd_jax.io.figures import CHOSEN, INK, OTHER, SOFT

    places = np.arange(len(ranking.candidates))[::-1]
    for place, candidate in zip(places, ranking.candidates, strict=True):
        axes.barh(place, candidate.share, color=CHOSEN if candidate.best else OTHER, height=0.5)
        lead = f"  {candidate.score:.{ranking.digits}f}"
        if candidate.best:
            lead += f"  ({ranking.margin})"
        axes.text(candidate.share, place, lead, va="center", fontsize=9, color=INK)
    labels = [
        textwrap.fill(f"{'✓ ' if c.best else ''}{c.label}", _LABEL_WIDTH)
        for c in ranking.candidates
    ]
    axes.set_yticks(places, labels, fontsize=9)
    for text, candidate in zip(axes.get_yticklabels(), ranking.candidates, strict=True):
        text.set_fontweight("bold" if candidate.best else "normal")
    axes.set_xlim(0, 1.25)
    axes.set_ylim(-0.6, len(places) - 0.4)
    axes.set_xticks([])
    axes.set_title(ranking.label, fontsize=9, color=SOFT, loc="left")
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
