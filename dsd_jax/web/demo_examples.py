"""The demo's examples: scenes of the bundled drawings, larger than the benchmark has them."""

from dataclasses import dataclass
from itertools import islice

import numpy as np
from PIL import Image

from dsd_jax.data.synthetic.scenes import SIDE, Scene, Thing, describe, read_plan
from dsd_jax.data.synthetic.sprites import STYLES, Sprites, load_sprites
from dsd_jax.data.synthetic.triples import make_triples

SCALE = 5  # how many times larger than the bundled model sees them
PAIRS = 24  # of the example to learn from
_PAPER, _SKY, _SUN = (245, 245, 245), (178, 208, 240), (245, 220, 120)


@dataclass(frozen=True)
class Example:
    """An example to rank.

    Attributes:
        title: in a few words.
        image: RGB.
        captions: of which the first fits.
    """

    title: str
    image: Image.Image
    captions: tuple[str, ...]


@dataclass(frozen=True)
class ExamplePairs:
    """Pairs to learn from: captions[i] fits images[i], and wrong[i] does not."""

    images: tuple[Image.Image, ...]
    captions: tuple[str, ...]
    wrong: tuple[str, ...]


def examples() -> list[Example]:
    """Return the examples to rank, the first of which the page begins with."""
    sprites = load_sprites()

    def scene(color: tuple[int, int, int], *things: tuple[str, str, int, int, int]) -> Image.Image:
        placed = tuple(
            Thing(sprites.concepts.index(name), STYLES.index(style), size, left, top)
            for name, style, size, left, top in things
        )
        return draw_large(Scene(placed, 0, color, (0, 0)), sprites)

    return [
        Example(
            "Left or right?",
            scene(_SKY, ("cat", "twemoji", 29, 3, 17), ("apple", "twemoji", 26, 36, 18)),
            ("a cat to the left of an apple", "an apple to the left of a cat"),
        ),
        Example(
            "Which is big?",
            scene(_SUN, ("dog", "noto", 33, 28, 26), ("pizza", "noto", 17, 5, 6)),
            ("a big dog and a small pizza", "a small dog and a big pizza"),
        ),
        Example(
            "What is it?",
            scene(_PAPER, ("penguin", "fluent_flat", 34, 15, 15)),
            ("a penguin", "an owl", "a dog", "a lion"),
        ),
    ]


def example_pairs(count: int = PAIRS) -> ExamplePairs:
    """Return pairs of the artist that the bundled model has never seen.

    A wrong caption differs from the right one in one thing: what there is, where, how big, or on
    which color.
    """
    sprites = load_sprites()
    triples = list(islice(make_triples("unseen-artist", "shots", sprites.concepts), count))
    return ExamplePairs(
        tuple(draw_large(triple.positive, sprites) for triple in triples),
        tuple(describe(read_plan(triple.positive), sprites.concepts) for triple in triples),
        tuple(describe(read_plan(triple.negative), sprites.concepts) for triple in triples),
    )


def draw_large(scene: Scene, sprites: Sprites) -> Image.Image:
    """Return the image of a scene, RGB, `SCALE` times as large as the bundled model sees it."""
    side = SIDE * SCALE
    ramp = np.linspace(-0.5, 0.5, side)
    light = scene.slope[0] * ramp[None, :, None] + scene.slope[1] * ramp[:, None, None]
    ground = (np.array(scene.shade) + light).clip(0, 255).astype(np.uint8)
    image = Image.fromarray(ground)
    for thing in sorted(scene.things, key=lambda t: (-t.size, t.left, t.top)):
        sprite = Image.fromarray(sprites.images[thing.style, thing.concept])
        size = thing.size * SCALE
        large = sprite.resize((size, size), Image.Resampling.LANCZOS)
        image.paste(large, (thing.left * SCALE, thing.top * SCALE), large)
    return image
