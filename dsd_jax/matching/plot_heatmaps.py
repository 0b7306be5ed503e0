"""Plots of attention maps: an image with the map of each word of a caption over it."""

import hashlib
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath
from PIL import Image, ImageDraw, ImageFont

from dsd_jax.io.images import ImageInput, read_image
from dsd_jax.io.storage import write_file

TILE = 224  # side of each copy of the image, in pixels
GAP = 12
LINE = 24  # height of a line of text
COLUMNS = 5
LONGEST_STEM = 160  # bytes
INK, PAPER, SOFT = (31, 35, 40), (255, 255, 255), (105, 110, 118)
# Colors from cold to hot at equal steps (matplotlib's inferno), dark to bright for any eye.
COLORS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])


def draw_heatmaps(
    image: ImageInput, caption: str, words: Sequence[str], maps: np.ndarray
) -> Image.Image:
    """Draw an image and, for each word, the image with the map of the word over it.

    `maps` is float of shape (W, H, W'), one map a word, of any range: each is scaled from its own
    lowest to its own highest value, so colors compare pixels, not words.
    """
    pixels = read_image(image, TILE)
    tiles = [pixels, *(overlay(pixels, heat) for heat in np.asarray(maps, np.float32))]
    labels = ["", *words]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width = columns * (TILE + GAP) + GAP
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    title = wrap(caption, font, width - 2 * GAP)
    top = GAP + LINE * len(title)
    sheet = Image.new("RGB", (width, top + rows * (TILE + LINE + GAP) + LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, line in enumerate(title):
        draw.text((GAP, GAP // 2 + row * LINE), line, INK, font)
    for index, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        x = GAP + (index % columns) * (TILE + GAP)
        y = top + (index // columns) * (TILE + LINE + GAP)
        sheet.paste(Image.fromarray(tile), (x, y))
        draw.text((x + TILE // 2, y + TILE + 2), label, INK, font, anchor="ma")
    note = "dark: little, bright: much; each word on its own scale"
    draw.text((GAP, sheet.height - LINE + 4), note, SOFT, small)
    return sheet


def file_name(image: int, stem: str, caption: int) -> str:
    """Return the file name of a plot, by the index and stem of an image and the caption's index.

    File systems take names of 255 bytes: a long stem is cut, and a digest keeps it distinct.
    """
    data = os.fsencode(stem)
    if len(data) > LONGEST_STEM:
        digest = hashlib.sha256(data).hexdigest()[:12]
        stem = f"{data[: LONGEST_STEM - 13].decode(errors='ignore')}-{digest}"
    return f"{image}-{stem}-caption-{caption}.png"


def write_image(path: Path, image: Image.Image) -> None:
    """Write `image` as PNG, whole or not at all; `UserError` where there is no room for it."""
    content = io.BytesIO()
    image.save(content, "PNG")
    write_file(epath.Path(path), content.getvalue())


def overlay(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Return an image (H, W, 3) in gray with a map in color over it: uint8 of the same shape."""
    size = pixels.shape[1], pixels.shape[0]
    resized = Image.fromarray(scaled(heat)).resize(size, Image.Resampling.BICUBIC)
    gray = pixels.mean(axis=-1, keepdims=True)
    return (0.4 * gray + 0.6 * color(np.asarray(resized).clip(0, 1))).clip(0, 255).astype(np.uint8)


def scaled(heat: np.ndarray) -> np.ndarray:
    """Return a map scaled to 0..1; all 0 if it is flat."""
    low, high = heat.min(), heat.max()
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def color(heat: np.ndarray) -> np.ndarray:
    """Return the colors of values from 0 to 1: floats (..., 3), 0 to 255."""
    steps = np.linspace(0, 1, len(COLORS))
    return np.stack([np.interp(heat, steps, channel) for channel in COLORS.T], axis=-1)


def wrap(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """Break a text into lines of at most `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
