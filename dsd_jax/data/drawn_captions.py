"""Draw scenes of emoji for captions, and pairs of images and captions to learn from.

For notebooks and demonstrations of the bundled model, which knows such scenes alone.
"""

import difflib
import re
from itertools import islice
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsd_jax.data.synthetic.scenes import (
    COLOR_NAMES,
    RELATIONS,
    SIZE_WORDS,
    Plan,
    draw,
    lay_out,
)
from dsd_jax.data.synthetic.sprites import STYLES, Sprites, load_sprites
from dsd_jax.data.synthetic.triples import ARTISTS, SPLITS, make_triples
from dsd_jax.errors import UserError

MOST_SEED = 2**32 - 1
_MID = 1  # the size that has no word
_ARTICLE = re.compile(r"^(?:an?|the)\s+")
_BACKGROUND = re.compile(r"\s+on\s+an?\s+(\w+)\s+background$")
_FORM = "a cat, a small cat above a big apple, a cat to the left of an apple on a red background"


class DrawnPairs(NamedTuple):
    """The pairs of a benchmark's items, each with an image that differs in one thing it says.

    Attributes:
        images: n images, 64 x 64.
        captions: n captions; captions[i] is true of images[i].
        wrong: n images, of which the captions are not true.
        kinds: what differs: subject, object, relation, size or background.
    """

    images: list[Image.Image]
    captions: list[str]
    wrong: list[Image.Image]
    kinds: list[str]


def draw_pairs(
    count: int, *, artists: str = "unseen-artist", split: str = "shots", start: int = 0
) -> DrawnPairs:
    """Draw items of the emoji benchmark, in their order.

    Args:
        count: how many.
        artists: "unseen-artist", who drew none of what the bundled model was trained on, or
            "seen-artists".
        split: "shots", to learn from, "validation" or "test".
        start: the number of the first.

    Raises:
        UserError: there are no such items.
    """
    if artists not in ARTISTS or split not in SPLITS:
        raise UserError(
            f"there is no '{artists}/{split}'; expected one of {', '.join(ARTISTS)} and one of "
            f"{', '.join(SPLITS)}."
        )
    if count < 1 or start < 0 or start + count > SPLITS[split]:
        raise UserError(
            f"items {start} to {start + count} were asked for; {split} has 0 to {SPLITS[split]}."
        )
    sprites = load_sprites()
    triples = islice(make_triples(artists, split, sprites.concepts), start, start + count)
    pairs = DrawnPairs([], [], [], [])
    for triple in triples:
        pairs.images.append(Image.fromarray(draw(triple.positive, sprites)))
        pairs.captions.append(triple.caption)
        pairs.wrong.append(Image.fromarray(draw(triple.negative, sprites)))
        pairs.kinds.append(triple.kind)
    return pairs


def draw_caption(caption: str, *, artist: str = "twemoji", seed: int = 0) -> Image.Image:
    """Draw a scene of which a caption is true, 64 x 64.

    Args:
        caption: one thing or two in a relation, in the bundled model's words, such as
            "a small cat above a big apple on a red background".
        artist: whose drawings, one of `data.synthetic.sprites.STYLES`.
        seed: of the places, and of the background where the caption names none.

    Raises:
        UserError: the caption has other words or another form, or there is no such artist.
    """
    if artist not in STYLES:
        raise UserError(f"artist is '{artist}'; expected one of {', '.join(STYLES)}.")
    if not 0 <= seed <= MOST_SEED:
        raise UserError(f"seed is {seed}; expected a whole number from 0 to {MOST_SEED:,}.")
    sprites = load_sprites()
    rng = np.random.default_rng(seed)
    plan = _read_caption(caption, sprites, STYLES.index(artist), rng)
    return Image.fromarray(draw(lay_out(rng, plan), sprites))


def _read_caption(caption: str, sprites: Sprites, style: int, rng: np.random.Generator) -> Plan:
    """Return what a caption says of a scene, the inverse of `scenes.describe`."""
    text = " ".join(caption.lower().split()).rstrip(".")
    background = int(rng.integers(len(COLOR_NAMES)))
    if found := _BACKGROUND.search(text):
        if found[1] not in COLOR_NAMES:
            raise UserError(
                f"caption '{caption}': a background is {', '.join(COLOR_NAMES)}, not {found[1]}."
            )
        text, background = text[: found.start()], COLOR_NAMES.index(found[1])
    nouns, relation = [text], None
    for index, words in enumerate(RELATIONS):
        first, between, second = text.partition(f" {words} ")
        if between:
            nouns, relation = [first, second], index
            break
    things = [_read_noun(noun, caption, sprites.concepts) for noun in nouns]
    concepts, sizes = zip(*things, strict=True)
    return Plan(concepts, (style,) * len(nouns), sizes, relation, background)


def _read_noun(noun: str, caption: str, concepts: tuple[str, ...]) -> tuple[int, int]:
    """Return the numbers of the thing and the size that "a big apple" names."""
    name, size = _ARTICLE.sub("", noun).strip(), _MID
    first, _, rest = name.partition(" ")
    if rest and first in SIZE_WORDS:
        name, size = rest, SIZE_WORDS.index(first)
    if name in concepts:
        return concepts.index(name), size
    close = difflib.get_close_matches(name, concepts, n=1)
    hint = f"did you mean '{close[0]}'?" if close else f"expected a form like: {_FORM}."
    raise UserError(f"caption '{caption}': nothing bundled is called '{name}'; {hint}")
