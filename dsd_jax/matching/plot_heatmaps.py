"""Pictures of where each word of a caption looks."""

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

TILE = 224  # pixels of each copy of the picture
GAP = 12
LINE = 24  # height of a line of text
COLUMNS = 5
LONGEST_STEM = 160  # bytes
INK, PAPER, SOFT = (31, 35, 40), (255, 255, 255), (105, 110, 118)
# Colours from cold to hot at equal steps (matplotlib's inferno), dark to bright for any eye.
COLOURS = np.array([(0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)])


def draw_heatmaps(
    image: ImageInput, caption: str, words: Sequence[str], maps: np.ndarray
) -> Image.Image:
    """Draws the picture and, for each word, the picture with that word's map over it.

    `maps` is float of shape (W, H, W'), one map a word, of any range: each is scaled from its own
    lowest to its own highest value, so colours compare places, not words.
    """
    picture = read_image(image, TILE)
    tiles = [picture, *(overlay(picture, heat) for heat in np.asarray(maps, np.float32))]
    labels = ["", *words]
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    width = columns * (TILE + GAP) + GAP
    font, small = ImageFont.load_default(16), ImageFont.load_default(12)
    title = wrap(caption, font, width - 2 * GAP)
    top = GAP + LINE * len(title)
    sheet = Image.new("RGB", (width, top + rows * (TILE + LINE + GAP) + LINE), PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(title):
        draw.text((GAP, GAP // 2 + number * LINE), line, INK, font)
    for number, (tile, label) in enumerate(zip(tiles, labels, strict=True)):
        x = GAP + (number % columns) * (TILE + GAP)
        y = top + (number // columns) * (TILE + LINE + GAP)
        sheet.paste(Image.fromarray(tile), (x, y))
        draw.text((x + TILE // 2, y + TILE + 2), label, INK, font, anchor="ma")
    note = "dark: little, bright: much; each word on its own scale"
    draw.text((GAP, sheet.height - LINE + 4), note, SOFT, small)
    return sheet


def file_name(image: int, stem: str, caption: int) -> str:
    """Return the name of the sheet of an image, by its number and file's stem, and a caption.

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


def overlay(picture: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The picture (H, W, 3) in grey with the map in colour over it, uint8 of the same shape."""
    size = picture.shape[1], picture.shape[0]
    heat = Image.fromarray(scaled(heat)).resize(size, Image.Resampling.BICUBIC)
    heat = np.asarray(heat).clip(0, 1)[..., None]
    grey = picture.mean(axis=-1, keepdims=True)
    return (0.4 * grey + 0.6 * colour(heat[..., 0])).clip(0, 255).astype(np.uint8)


def scaled(heat: np.ndarray) -> np.ndarray:
    """The map from 0 to 1; all 0 if it is flat."""
    low, high = heat.min(), heat.max()
    return (heat - low) / (high - low) if high > low else np.zeros_like(heat)


def colour(heat: np.ndarray) -> np.ndarray:
    """Colours of values from 0 to 1; floats of shape (..., 3), 0 to 255."""
    steps = np.linspace(0, 1, len(COLOURS))
    return np.stack([np.interp(heat, steps, channel) for channel in COLOURS.T], axis=-1)


def wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """Breaks the text into lines that fit the width in pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
