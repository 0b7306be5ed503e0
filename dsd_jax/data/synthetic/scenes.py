"""Small scenes of one or two drawings on a colored ground, and captions that are true of them.

A `Plan` is all that a caption can say about a scene (which things, how big, where, on what
color); a `Scene` is one arrangement in pixels that fulfils it. Everything random comes from a
`numpy.random.Generator`, of which only `random` and `integers` are used, and pixels are made in
integer arithmetic: the same seed draws the same bytes on every machine.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from dsd_jax.data.synthetic.sprites import Sprites

ARTICLE_EXCEPTIONS = ("hourglass", "unicorn")  # "an hourglass", "a unicorn"
SIDE = 64  # pixels of a scene
SIZES = (
    (16, 20),
    (23, 27),
    (30, 34),
)  # small, mid, big: longest side in pixels, both ends included
SIZE_WORDS = ("small", "", "big")
RELATIONS = ("to the left of", "to the right of", "above", "below")
INVERSE = (1, 0, 3, 2)  # the same fact told from the other thing
COLORS = {
    "white": (245, 245, 245),
    "grey": (155, 155, 160),
    "red": (222, 95, 90),
    "yellow": (245, 220, 90),
    "green": (130, 200, 125),
    "blue": (115, 160, 230),
    "purple": (165, 115, 210),
    "pink": (248, 180, 212),
}
COLOR_NAMES = tuple(COLORS)
JITTER = 8  # how far each channel of the ground may lie from its color
GRADIENT = 24  # and how much a channel may differ between opposite edges
OVERLAP = 0.2  # part of the mean size by which two drawings' squares may overlap
ASIDE = 0.4  # distance across the relation's axis, at most, in units of that along it


class Plan(NamedTuple):
    """A description of a scene; each tuple has one entry per thing, at most two."""

    concepts: tuple[int, ...]
    styles: tuple[int, ...]
    sizes: tuple[int, ...]  # 0 small, 1 mid, 2 big
    relation: int | None  # of the first thing to the second, index into RELATIONS
    background: int  # index into COLOR_NAMES


class Thing(NamedTuple):
    """A drawing in a scene, and the square of `size` pixels that it fills."""

    concept: int
    style: int
    size: int
    left: int
    top: int


class Scene(NamedTuple):
    """A scene in pixels.

    shade: the ground's color in the middle. slope: how much it changes from the left to the right
    and from the top to the bottom edge.
    """

    things: tuple[Thing, ...]
    background: int
    shade: tuple[int, int, int]
    slope: tuple[int, int]


def held_out_pairs(
    concepts: int, fraction: float = 0.15, seed: int = 2024
) -> frozenset[tuple[int, int]]:
    """Return the unordered pairs (i, j), i < j < `concepts`, that pre-training never shows.

    `fraction` of all pairs, drawn by `seed`. All few-shot and test items use these pairs only.
    """
    rng = np.random.default_rng(seed)
    pairs = list(itertools.combinations(range(concepts), 2))
    order = np.argsort(rng.random(len(pairs)), kind="stable")
    return frozenset(pairs[i] for i in order[: round(fraction * len(pairs))])


def allowed_pairs(concepts: int) -> list[tuple[int, int]]:
    """Return the unordered pairs (i, j), i < j, that pre-training may show, in order."""
    held_out = held_out_pairs(concepts)
    return [pair for pair in itertools.combinations(range(concepts), 2) if pair not in held_out]


def sample_plan(
    rng: np.random.Generator, pairs: Sequence, styles: Sequence, single: float = 0.3
) -> Plan:
    """Draw a plan with one thing (probability `single`) or two, a pair of `pairs` in random order.

    Each thing's style is drawn from `styles` on its own; sizes, relation and color are uniform.
    """
    concepts = pairs[int(rng.integers(len(pairs)))]
    concepts = concepts if rng.random() < 0.5 else concepts[::-1]
    alone = rng.random() < single
    concepts = tuple(int(c) for c in concepts[: 1 if alone else 2])
    return Plan(
        concepts,
        tuple(int(styles[int(rng.integers(len(styles)))]) for _ in concepts),
        tuple(int(rng.integers(len(SIZES))) for _ in concepts),
        None if alone else int(rng.integers(len(RELATIONS))),
        int(rng.integers(len(COLORS))),
    )


def lay_out(rng: np.random.Generator, plan: Plan) -> Scene:
    """Draw one of the many scenes that fulfil `plan`: exact sizes, places and shades."""
    sizes = [int(rng.integers(SIZES[s][0], SIZES[s][1] + 1)) for s in plan.sizes]
    if plan.relation is None:
        places = [(int(rng.integers(SIDE - sizes[0] + 1)), int(rng.integers(SIDE - sizes[0] + 1)))]
    else:
        places = _place_two(rng, sizes, plan.relation)
    drawings = zip(plan.concepts, plan.styles, sizes, places, strict=True)
    things = tuple(Thing(concept, style, size, *at) for concept, style, size, at in drawings)
    base = COLORS[COLOR_NAMES[plan.background]]
    red, green, blue = (int(c + rng.integers(-JITTER, JITTER + 1)) for c in base)
    right, down = (int(rng.integers(-GRADIENT, GRADIENT + 1)) for _ in range(2))
    return Scene(things, plan.background, (red, green, blue), (right, down))


def _place_two(
    rng: np.random.Generator, sizes: Sequence[int], relation: int
) -> list[tuple[int, int]]:
    """Draw the top left corners of two squares; the first stands in `relation` to the second.

    The axis is unambiguous: centers lie at least the mean size less OVERLAP apart along it, and
    across it at most ASIDE times as far as along it. Neither square is favored by a place.
    """
    near, far = (0, 1) if relation % 2 == 0 else (1, 0)  # seen from the left or top edge
    slack = SIDE - (2 - OVERLAP) * (sizes[0] + sizes[1]) / 2
    u, v, bigger_at, smaller_at = (float(x) for x in rng.random(4))
    along = [0, 0]
    along[near] = int(min(u, v) * slack)
    along[far] = SIDE - sizes[far] - int((1 - max(u, v)) * slack)
    distance = (along[far] + sizes[far] / 2) - (along[near] + sizes[near] / 2)
    across = _place_across(sizes, ASIDE * distance, bigger_at, smaller_at)
    horizontal = relation < 2
    return [(a, b) if horizontal else (b, a) for a, b in zip(along, across, strict=True)]


def _place_across(
    sizes: Sequence[int], reach: float, bigger_at: float, smaller_at: float
) -> list[int]:
    """Return where two squares begin across their axis.

    Args:
        sizes: of both.
        reach: how far apart their centers may lie, at most.
        bigger_at: where the bigger one lies, from 0 to 1 of all places.
        smaller_at: where the smaller one lies, from 0 to 1 of those that `reach` leaves it.
    """
    bigger, smaller = (0, 1) if sizes[0] >= sizes[1] else (1, 0)
    start = int(bigger_at * (SIDE - sizes[bigger] + 1))
    centered = start + sizes[bigger] / 2 - sizes[smaller] / 2
    low = max(0, math.ceil(centered - reach))
    high = min(SIDE - sizes[smaller], int(centered + reach))
    places = [0, 0]
    places[bigger] = start
    places[smaller] = low + int(smaller_at * (high - low + 1))
    return places


def sample_scene(rng: np.random.Generator, pairs: Sequence, styles: Sequence) -> Scene:
    """Draw a scene for pre-training: 30 % one thing, else one of `pairs`; styles from `styles`."""
    return lay_out(rng, sample_plan(rng, pairs, styles))


def read_plan(scene: Scene) -> Plan:
    """Return the plan of a scene, from its geometry alone."""
    things = scene.things
    relation = None
    if len(things) == 2:
        corners = (things[0].left, things[1].left), (things[0].top, things[1].top)
        x, y = ((2 * a + things[0].size) - (2 * b + things[1].size) for a, b in corners)
        relation = int(x > 0) if abs(x) > abs(y) else 2 + int(y > 0)
    return Plan(
        tuple(thing.concept for thing in things),
        tuple(thing.style for thing in things),
        tuple(next(i for i, (_, top) in enumerate(SIZES) if thing.size <= top) for thing in things),
        relation,
        scene.background,
    )


def describe(
    plan: Plan,
    concepts: Sequence[str],
    name_sizes: Sequence[bool] = (True, True),
    name_background: bool = True,
    first: int = 0,
) -> str:
    """Return the sentence that says `plan`: `a small cat above a big apple on a red background`.

    Args:
        plan: one or two things.
        concepts: the things' names.
        name_sizes: for each thing, whether its size is said (a mid one has no word).
        name_background: whether the background's color is said.
        first: the thing that the sentence starts with; the relation is turned round for 1.
    """
    nouns = []
    for i, (concept, size) in enumerate(zip(plan.concepts, plan.sizes, strict=True)):
        words = f"{SIZE_WORDS[size] if name_sizes[i] else ''} {concepts[concept]}".strip()
        nouns.append(f"{article(words)} {words}")
    if plan.relation is None:
        text = nouns[0]
    elif first == 0:
        text = f"{nouns[0]} {RELATIONS[plan.relation]} {nouns[1]}"
    else:
        text = f"{nouns[1]} {RELATIONS[INVERSE[plan.relation]]} {nouns[0]}"
    return f"{text} on a {COLOR_NAMES[plan.background]} background" if name_background else text


def article(words: str) -> str:
    """Return `a` or `an`, as `words` are spoken."""
    return "an" if (words[0] in "aeiou") != (words in ARTICLE_EXCEPTIONS) else "a"


def caption(scene: Scene, concepts: Sequence[str], rng: np.random.Generator) -> str:
    """Draw a true sentence about `scene`; one scene has many.

    Which thing comes first, and whether each size and the background are named, are fair coins.
    """
    coins = [bool(coin) for coin in rng.random(4) < 0.5]
    return describe(read_plan(scene), concepts, coins[:2], coins[2], int(coins[3]))


def draw(scene: Scene, sprites: Sprites) -> np.ndarray:
    """Return the image of `scene`, uint8 (64, 64, 3); a smaller drawing lies over a bigger one."""
    ramp = 2 * np.arange(SIDE, dtype=np.int32) - (SIDE - 1)
    light = scene.slope[0] * ramp[None, :, None] + scene.slope[1] * ramp[:, None, None]
    ground = np.array(scene.shade, np.int32) + (light + SIDE) // (2 * SIDE)
    image = np.clip(ground, 0, 255).astype(np.uint16)
    for thing in sorted(scene.things, key=lambda t: (-t.size, t.left, t.top)):
        sprite = resized(sprites, thing.style, thing.concept, thing.size)
        part = image[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size]
        part[:] = sprite[..., :3] + (part * (255 - sprite[..., 3:]) + 127) // 255
    return image.astype(np.uint8)


def resized(sprites: Sprites, style: int, concept: int, size: int) -> np.ndarray:
    """Return a drawing, uint8 (size, size, 4) with premultiplied alpha; `sprites.cache` keeps it.

    The bilinear filter is plain arithmetic, so that unlike Lanczos it does not depend on a libm.
    """
    key = style, concept, size
    if key not in sprites.cache:
        image = Image.fromarray(sprites.images[style, concept]).convert("RGBa")
        small = image.resize((size, size), Image.Resampling.BILINEAR)
        sprites.cache[key] = np.frombuffer(small.tobytes(), np.uint8).reshape(size, size, 4)
    return sprites.cache[key]
