"""Draws docs/example.png: a picture, where its words are found, and two captions ranked.

python docs/draw_example.py
All is what the bundled model says, by the defaults of `explain` and by `relative` at ten timesteps.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import dsd_jax

DOCS = Path(__file__).parent
CAPTIONS = ["a cat to the left of an apple", "an apple to the left of a cat"]
SHOWN = ("cat", "apple")
GROUND, INK, SOFT, CHOSEN, OTHER = "#fbfaf8", "#1d2128", "#5c6470", "#bf3f0f", "#aab2c0"


def main() -> None:
    """Score, explain and draw."""
    model, path = dsd_jax.load("tiny"), DOCS / "cat-left.png"
    picture = Image.open(path).convert("RGB")
    result = dsd_jax.match(model, [path], CAPTIONS, method="relative", timesteps=10)
    words, maps = dsd_jax.explain(model, path, CAPTIONS[0])
    plt.rcParams["font.family"] = ["DejaVu Sans"]
    figure = plt.figure(figsize=(12, 5.9), facecolor=GROUND)
    draw_pictures(figure, picture, {word: contrast(maps[words.index(word)]) for word in SHOWN})
    draw_ranking(figure.add_axes((0.37, 0.06, 0.60, 0.22)), result.scores[0])
    figure.savefig(DOCS / "example.png", dpi=100, facecolor=GROUND)
    Image.open(DOCS / "example.png").convert("RGB").save(DOCS / "example.png", optimize=True)


def contrast(heat: np.ndarray) -> np.ndarray:
    """Return a map as multiples of its average."""
    return heat / heat.mean()


def draw_pictures(figure: Any, picture: Image.Image, maps: dict[str, np.ndarray]) -> None:
    """Draw the picture, and it again under the map of each word; one scale of color for all."""
    enlarged = picture.resize((720, 720), Image.Resampling.LANCZOS)
    dark = Image.blend(enlarged.convert("L").convert("RGB"), Image.new("RGB", (720, 720)), 0.55)
    brightest = max(heat.max() for heat in maps.values())
    for number, word in enumerate(["", *maps]):
        axes = figure.add_axes((0.03 + 0.33 * number, 0.34, 0.28, 0.57))
        axes.imshow(dark if word else enlarged, extent=(0, 1, 1, 0))
        if word:
            heat = maps[word] / brightest
            place = {"extent": (0, 1, 1, 0), "interpolation": "bilinear"}
            axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=np.sqrt(heat), **place)
        title = f"where it finds “{word}”" if word else "the picture"
        axes.set_title(title, fontsize=17, color=INK, pad=10)
        axes.set_axis_off()


def draw_ranking(axes: Any, scores: np.ndarray) -> None:
    """Draw a bar for each caption, the better one on top."""
    order = np.argsort(scores)
    for place, number in enumerate(order):
        best = place == len(order) - 1
        axes.barh(place, scores[number], color=CHOSEN if best else OTHER, height=0.5)
        mark = "  ✓" if best else ""
        at = max(scores[number], 0) + 0.006
        axes.text(at, place, f"{scores[number]:+.2f}{mark}", va="center", fontsize=17, color=INK)
    axes.set_yticks(range(len(order)), [CAPTIONS[i] for i in order], fontsize=17)
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_facecolor(GROUND)
    axes.set_xlim(min(0, scores.min()) - 0.005, scores.max() * 1.25)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=10)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
