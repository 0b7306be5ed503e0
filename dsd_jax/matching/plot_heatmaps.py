"""Plots of maps over an image: one for each word of a caption, and one of a decision."""

import hashlib
import os
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from dsd_jax.io.figures import INK, SOFT, new_figure

COLORS = "inferno"  # from dark to bright at equal steps, for any eye
SIGNED_COLORS = "RdBu_r"  # blue for the other caption, red for this one
COLUMNS = 5  # large panels beside each other, at most; twice as many small ones
TILE = 2.3  # inches of a large panel's longer side
SHOWN_SIDE = 640  # pixels of a panel's longer side, at most
LONGEST_STEM = 160  # bytes of a file's name


@dataclass(frozen=True)
class Scale:
    """The meaning of colors.

    Attributes:
        label: what is shown, and its unit.
        low, high: values of the first and the last color.
        signed: whether 0, in the middle, has no color.
    """

    label: str
    low: float
    high: float
    signed: bool = False

    def share(self, heat: np.ndarray) -> np.ndarray:
        """Return values as parts of the scale, 0 to 1; 0 if it is flat."""
        width = self.high - self.low
        return np.clip((heat - self.low) / width, 0, 1) if width > 0 else np.zeros_like(heat)


@dataclass(frozen=True)
class Panel:
    """A map to draw over an image.

    Attributes:
        label: what is written above it.
        heat: (H, W), in units of the scale.
        scale: of its colors.
        large: whether it is drawn large.
    """

    label: str
    heat: np.ndarray
    scale: Scale
    large: bool = True


def draw_panels(
    image: Image.Image, title: str, panels: Sequence[Panel], scales: Sequence[Scale]
) -> Figure:
    """Draw an image, and over copies of it maps: the large ones first, then the small ones.

    Args:
        image: at its own size, whose proportions panels have.
        title: above all.
        panels: maps.
        scales: to explain below, two at most.
    """
    shown = image.copy()
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE), Image.Resampling.LANCZOS)
    large, small = ([p for p in panels if p.large is size] for size in (True, False))
    count = 1 + len(large)
    columns = -(-count // -(-count // COLUMNS))  # rows of equal length
    rows = -(-count // columns), -(-len(small) // (2 * columns))
    width, height = (TILE * side / max(image.size) for side in image.size)
    heights = [height + 0.35] * rows[0] + [height / 2 + 0.3] * rows[1] + [0.12]
    lines = textwrap.wrap(title, max(24, int(columns * width * 8)))
    figure = new_figure(
        max(columns * (width + 0.15), 3.4),
        sum(heights) + 0.25 * len(lines) + 0.6,
        dpi=min(max(max(shown.size) / TILE, 110), 220),
    )
    figure.suptitle("\n".join(lines), fontsize=12, color=INK, x=0.01, ha="left")
    grid = figure.add_gridspec(len(heights), 2 * columns, height_ratios=heights)
    _show(figure.add_subplot(grid[0, :2]), np.asarray(shown), "the image")
    for place, panel in enumerate(large, 1):
        row, column = divmod(place, columns)
        axes = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
        _show(axes, overlay(shown, panel.heat, panel.scale), panel.label)
    for place, panel in enumerate(small):
        row, column = divmod(place, 2 * columns)
        axes = figure.add_subplot(grid[rows[0] + row, column])
        _show(axes, overlay(shown, panel.heat, panel.scale), panel.label, size=8)
    _add_scales(figure, grid, scales)
    return figure


def _show(axes: Any, pixels: np.ndarray, label: str, size: int = 11) -> None:
    axes.imshow(pixels, interpolation="bicubic")
    axes.set_title(label, fontsize=size, color=INK, pad=3)
    axes.set_axis_off()


def _add_scales(figure: Figure, grid: Any, scales: Sequence[Scale]) -> None:
    """Draw the scales beside each other in the last row."""
    count = grid.ncols // max(1, len(scales))
    for place, scale in enumerate(scales):
        axes = figure.add_subplot(grid[-1, place * count : (place + 1) * count])
        norm = Normalize(scale.low, scale.high)
        colors = SIGNED_COLORS if scale.signed else COLORS
        bar = figure.colorbar(ScalarMappable(norm, colors), axes, orientation="horizontal")
        bar.set_label(scale.label, fontsize=8, color=SOFT)
        bar.locator = MaxNLocator(5)
        bar.ax.tick_params(labelsize=8, colors=SOFT, length=2)
        bar.outline.set_visible(False)


def overlay(image: Image.Image, heat: np.ndarray, scale: Scale) -> np.ndarray:
    """Return an image in gray with a map in color over it: uint8 (H, W, 3) of the image's size.

    Args:
        image: in RGB.
        heat: of any size and the image's proportions.
        scale: of the map; a signed one leaves the image gray where it is 0.
    """
    big = Image.fromarray(np.asarray(heat, np.float32)).resize(image.size, Image.Resampling.BICUBIC)
    share = scale.share(np.asarray(big))
    gray = np.asarray(image.convert("L"), np.float32)[..., None]
    if scale.signed:
        color = 255 * colormaps[SIGNED_COLORS](share)[..., :3]
        weight = 0.85 * np.abs(2 * share - 1)[..., None] ** 0.7
        gray = 0.35 * gray + 0.65 * 235  # pale, so that red and blue are what one sees
    else:
        color, weight = 255 * colormaps[COLORS](share)[..., :3], 0.6
    return ((1 - weight) * gray + weight * color).clip(0, 255).astype(np.uint8)


def file_name(image: int, stem: str, caption: int) -> str:
    """Return the file name of a plot, by the index and stem of an image and the caption's index.

    File systems take names of 255 bytes: a long stem is cut, and a digest keeps it distinct.
    """
    data = os.fsencode(stem)
    if len(data) > LONGEST_STEM:
        digest = hashlib.sha256(data).hexdigest()[:12]
        stem = f"{data[: LONGEST_STEM - 13].decode(errors='ignore')}-{digest}"
    return f"{image}-{stem}-caption-{caption}.png"
