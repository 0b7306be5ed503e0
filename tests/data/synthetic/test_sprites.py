import itertools
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

import dsd_jax.assets
from dsd_jax.assets.build_sprites import fit, read_concepts
from dsd_jax.data.synthetic.sprites import CELL, STYLES, UNSEEN_STYLE

FOLDER = Path(dsd_jax.assets.__file__).parent / "sprites"


def test_hundred_concepts_in_seven_styles(sprites):
    assert sprites.styles == STYLES and len(STYLES) == 7 and UNSEEN_STYLE in STYLES
    assert len(sprites.concepts) >= 100
    assert sprites.images.shape == (7, len(sprites.concepts), CELL, CELL, 4)
    assert sprites.images.dtype == np.uint8


def test_names_are_one_or_two_plain_words_and_unique(sprites):
    assert len(set(sprites.concepts)) == len(sprites.concepts)
    for name in sprites.concepts:
        assert re.fullmatch(r"[a-z]+( [a-z]+)?", name), name


def test_every_drawing_is_there_and_fills_its_cell(sprites):
    for (style, row), (concept, name) in itertools.product(
        enumerate(sprites.images), enumerate(sprites.concepts)
    ):
        seen = row[concept, ..., 3] > 8
        where = f"{name} in {STYLES[style]}"
        assert seen.mean() > 0.1, where
        sides = [np.ptp(np.flatnonzero(seen.any(axis))) + 1 for axis in (0, 1)]
        assert max(sides) >= CELL - 1, where


def test_no_two_concepts_or_styles_share_a_drawing(sprites):
    """The nearest two drawings of a style, at 20 pixels on gray, still differ clearly."""
    for style, images in zip(STYLES, sprites.images, strict=True):
        small = np.stack([flatten(image) for image in images])
        apart = np.abs(small[:, None] - small[None]).mean(axis=(2, 3, 4))
        np.fill_diagonal(apart, np.inf)
        i, j = np.unravel_index(apart.argmin(), apart.shape)
        assert apart.min() > 12, (style, sprites.concepts[i], sprites.concepts[j])
    for first, second in itertools.combinations(sprites.images, 2):
        assert all((first != second).any(axis=(1, 2, 3)))


def flatten(image):
    small = Image.fromarray(image).resize((20, 20))
    ground = Image.new("RGBA", small.size, (155, 155, 160, 255))
    return np.asarray(Image.alpha_composite(ground, small).convert("RGB"), np.float32)


def test_table_follows_the_list_it_is_built_from(sprites):
    assert [name for name, _, _ in read_concepts()] == list(sprites.concepts)
    rows = json.loads((FOLDER / "concepts.json").read_text())["concepts"]
    assert [row["codepoint"] for row in rows] == [code for _, code, _ in read_concepts()]


def test_fit_crops_centres_and_fills():
    image = Image.new("RGBA", (200, 200))
    image.paste((255, 0, 0, 255), (50, 90, 150, 140))
    cell = np.asarray(fit(image))
    assert cell.shape == (CELL, CELL, 4)
    rows = np.flatnonzero((cell[..., 3] > 127).any(1))
    assert (rows[0], rows[-1]) == (24, 71)  # 100 x 50 becomes 96 x 48, in the middle
    assert (cell[40:56, :, 3] == 255).all() and (cell[cell[..., 3] == 0] == 0).all()


def test_every_file_is_attributed_licensed_and_small():
    text = (FOLDER / "ATTRIBUTION.md").read_text()
    assert all(f"`{style}.webp`" in text for style in STYLES)
    licences = re.findall(r"\]\((LICENSE[^)]*)\)", text)
    assert len(set(licences)) == 5
    assert all(len((FOLDER / name).read_text()) > 1000 for name in licences)
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 5e6
