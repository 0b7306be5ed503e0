"""The pictures of right and wrong decisions in `report.html`."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

from dsd_jax.report.report_rows import Decision, prompts_label

PICTURE_SIDE = 192  # pixels; larger pictures are shrunk so that the file stays small


def gallery(decisions: Sequence[Decision]) -> str:
    """The wrong ones, then the right ones."""
    parts = []
    for right, name in ((False, "Wrong"), (True, "Right")):
        cards = [decision_card(decision) for decision in decisions if decision.right == right]
        if cards:
            parts.append(f'<h3>{name}</h3><div class="gallery">{"".join(cards)}</div>')
    return "".join(parts)


def decision_card(decision: Decision) -> str:
    """One decision."""
    positive, negative = decision.positive_score, decision.negative_score
    verdict = "&#10003; right" if decision.right else "&#10007; wrong"
    other = decision.other_caption
    names = ("fits", "does not fit") if other is None else (decision.caption, other)
    alts = [f"picture that {name}" if other is None else f"picture: {name}" for name in names]
    pictures = picture(decision.positive, names[0], alts[0], positive, positive > negative)
    pictures += picture(decision.negative, names[1], alts[1], negative, negative > positive)
    kind = "right" if decision.right else "wrong"
    detail = f"{decision.kind}; {decision.method}, {prompts_label(decision.prompts)}"
    return (
        f'<article class="{kind}"><h4>{escape(decision.caption)}</h4>'
        f'<div class="pair">{pictures}</div>'
        f'<p><span class="verdict">{verdict}</span> by {abs(positive - negative):.3g}</p>'
        f"<p><small>{escape(detail)}; {escape(decision.split)}</small></p></article>"
    )


def picture(pixels: np.ndarray, name: str, alt: str, score: float, chosen: bool) -> str:
    """A picture with its score."""
    outline = ' class="chosen"' if chosen else ""
    alt = escape(alt + (", chosen by the model" if chosen else ""))
    return (
        f'<figure{outline}><img alt="{alt}" src="{data_url(pixels)}">'
        f"<figcaption>{escape(name)}<br><b>{score:.4g}</b></figcaption></figure>"
    )


def data_url(pixels: np.ndarray) -> str:
    """The picture as a PNG inside the page."""
    image = Image.fromarray(np.asarray(pixels))
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    file = io.BytesIO()
    image.save(file, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
