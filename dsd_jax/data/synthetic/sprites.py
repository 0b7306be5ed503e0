"""The drawings that scenes are made of: every concept in every artist's style."""

import json
import pathlib
from typing import NamedTuple

import numpy as np
from PIL import Image

CELL = 96  # side of a sprite in pixels
COLUMNS = 13  # sprites in a row of an atlas file
STYLES = (
    "twemoji",
    "noto",
    "fluent_flat",
    "fluent_modern",
    "fluent_3d",
    "emojione",
    "openmoji",
)
UNSEEN_STYLE = "openmoji"  # the artist that pre-training never sees


class Sprites(NamedTuple):
    """All drawings: `images[s, c]` shows `concepts[c]` as `styles[s]` draws it.

    images: uint8 (styles, concepts, 96, 96, 4), RGBA with straight alpha, the longer side of every
    drawing filling its cell. cache: smaller copies, filled as they are needed.
    """

    images: np.ndarray
    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    cache: dict


def load_sprites(folder: str | pathlib.Path | None = None) -> Sprites:
    """Read the bundled sprites, or those that `build_sprites` wrote into `folder`."""
    folder = pathlib.Path(folder or pathlib.Path(__file__).parents[2] / "assets" / "sprites")
    table = json.loads((folder / "concepts.json").read_text())
    concepts = tuple(concept["name"] for concept in table["concepts"])
    styles = tuple(table["styles"])
    images = np.stack([read_atlas(folder / f"{style}.webp", len(concepts)) for style in styles])
    return Sprites(images, concepts, styles, cache={})


def read_atlas(path: pathlib.Path, count: int) -> np.ndarray:
    """Return the cells of one atlas file in reading order, uint8 (count, 96, 96, 4)."""
    atlas = np.asarray(Image.open(path).convert("RGBA"))
    rows = atlas.shape[0] // CELL
    cells = atlas.reshape(rows, CELL, COLUMNS, CELL, 4).swapaxes(1, 2)
    return cells.reshape(rows * COLUMNS, CELL, CELL, 4)[:count]
