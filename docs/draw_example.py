"""Draws docs/example.png: a picture, where its words are found, and two captions ranked.

python docs/draw_example.py
All is what the bundled model says with the defaults of `explain` and ten timesteps of `relative`.
"""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

import dsd_jax

DOCS = Path(__file__).parent
CAPTIONS = ["a cat to the left of an apple", "an apple to the left of a cat"]
SHOWN = ("cat", "left", "apple")
GROUND, INK, SOFT, CHOSEN, OTHER = "#fbfaf8", "#1d2128", "#5c6470", "#bf3f0f", "#aab2c0"


def main() -> None:
    """Score, explain and draw."""
    model, path = dsd_jax.load("tiny"), DOCS / "cat-left.png"
    picture = Image.open(path).convert("RGB")
    result = dsd_jax.match(model, [path], CAPTIONS, method="relative", timesteps=10)
    words, maps = dsd_jax.explain(model, path, CAPTIONS[0])
    plt.rcParams["font.family"] = ["DejaVu Sans"]
    figure = plt.figure(figsize=(12, 4.6), facecolor=GROUND)
    draw_pictures(figure, picture, {word: maps[words.index(word)] for word in SHOWN})
    draw_ranking(figure.add_axes((0.36, 0.07, 0.60, 0.25)), result.scores[0])
    figure.savefig(DOCS / "example.png", dpi=100, facecolor=GROUND)
    small = Image.open(DOCS / "example.png").convert("RGB").quantize(256)
    small.save(DOCS / "example.png", optimize=True)


def draw_pictures(figure: Any, picture: Image.Image, maps: dict[str, np.ndarray]) -> None:
    """Draw the picture, and it again under the map of each word; one scale of color for all."""
    side = 480
    enlarged = picture.resize((side, side), Image.Resampling.LANCZOS)
    brightest = max(heat.max() for heat in maps.values())
    for number, word in enumerate(["", *maps]):
        axes = figure.add_axes((0.025 + 0.243 * number, 0.37, 0.22, 0.574))
        axes.imshow(enlarged, extent=(0, 1, 1, 0))
        if word:
            heat = maps[word] / brightest
            axes.imshow(heat, cmap="inferno", vmin=0, vmax=1, alpha=0.72, extent=(0, 1, 1, 0))
        title = f"“{word}”" if word else "the picture"
        axes.set_title(title, fontsize=15, color=INK, pad=8)
        axes.set_axis_off()


def draw_ranking(axes: Any, scores: np.ndarray) -> None:
    """Draw a bar for each caption, the better one on top."""
    order = np.argsort(scores)
    for place, number in enumerate(order):
        best = place == len(order) - 1
        axes.barh(place, scores[number], color=CHOSEN if best else OTHER, height=0.52)
        mark = "  ✓" if best else ""
        at = max(scores[number], 0) + 0.006
        axes.text(at, place, f"{scores[number]:+.3f}{mark}", va="center", fontsize=15, color=INK)
    axes.set_yticks(range(len(order)), [CAPTIONS[i] for i in order], fontsize=15)
    for label in axes.get_yticklabels():
        label.set_color(INK)
    axes.get_yticklabels()[-1].set_fontweight("bold")
    axes.axvline(0, color=SOFT, linewidth=1)
    axes.set_xlim(min(0, scores.min()) - 0.005, scores.max() * 1.3)
    axes.set_xticks([])
    axes.tick_params(length=0, pad=8)
    axes.spines[:].set_visible(False)


if __name__ == "__main__":
    main()
