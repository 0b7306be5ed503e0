"""Folders of pictures and captions as users have them: photographs' sizes, kinds and flaws."""

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from dsd_jax.data.datasets.comvg import COLUMNS, CSV, KINDS

SIZE = 640, 480
_COLORS = ("red", "green", "blue", "orange", "purple", "white", "black", "yellow")
_TURNED = 6  # EXIF's number of a camera that was held upright
_ORIENTATION = 0x0112  # EXIF's tag


def write_own(folder: Path, count: int) -> Path:
    """Write pictures and `captions.jsonl`, an item per picture with one wrong caption.

    Args:
        folder: where; created.
        count: items; half of them of each of two kinds.

    Returns:
        The folder.
    """
    _write_pictures(folder / "pictures", count)
    rows = [
        {
            "image": f"pictures/{_name(number)}",
            "caption": _caption(number),
            "wrong_captions": [_caption(number + 1)],
            "kind": ("first", "second")[number * 2 // count],
        }
        for number in range(count)
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "captions.jsonl").write_text(text)
    return folder


def write_comvg(folder: Path, count: int) -> Path:
    """Write pictures and ComVG's csv: a caption with its picture and the next one.

    Args:
        folder: where; created.
        count: items, and pictures.

    Returns:
        The folder.
    """
    _write_pictures(folder / "VG_100K", count)
    with (folder / CSV).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number in range(count):
            wrong = (number + 1) % count
            rows.writerow((_caption(number), number, wrong, KINDS[number % len(KINDS)]))
    return folder


def _name(number: int) -> str:
    return f"{number}.jpg"


def _caption(number: int) -> str:
    side = ("left", "right")[number % 2]
    return f"a {_COLORS[number % len(_COLORS)]} ball on the {side} of picture {number}"


def _write_pictures(folder: Path, count: int) -> None:
    """Write JPEGs; every fourth but the first is turned by its EXIF tag, gray or CMYK, in turn."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        picture, exif = _draw(rng, number), Image.Exif()
        kind = number // 4 % 3 if number % 4 == 0 and number else None
        if kind == 1:
            picture = picture.transpose(Image.Transpose.ROTATE_90)
            exif[_ORIENTATION] = _TURNED
        elif kind is not None:
            picture = picture.convert("L" if kind == 2 else "CMYK")
        picture.save(folder / _name(number), quality=90, exif=exif)


def _draw(rng: np.random.Generator, number: int) -> Image.Image:
    """Return a ball of a color on one side of noise, which no two pictures share."""
    width, height = SIZE
    noise = rng.integers(96, 160, (height // 8, width // 8, 3), np.uint8)
    picture = Image.fromarray(noise).resize(SIZE, Image.Resampling.BICUBIC)
    left = width // 8 + number % 2 * width // 2
    ball = left, height // 4, left + width // 4, height // 4 + width // 4
    ImageDraw.Draw(picture).ellipse(ball, fill=_COLORS[number % len(_COLORS)])
    return picture
