"""The scenes that made data sets are of: pairs that differ in one thing, and lone drawings."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from dsd_jax.data.synthetic.scenes import (
    Plan,
    Scene,
    describe,
    draw,
    lay_out,
    read_plan,
    sample_plan,
)
from dsd_jax.data.synthetic.sprites import Sprites
from dsd_jax.data.synthetic.triples import ARTISTS, Triple, make_triples

SEED = 8
QUALITY = 95


def triples(sprites: Sprites, kinds: tuple[str, ...], count: int) -> Iterator[Triple]:
    """Items by artists that the bundled model knows, `count` of each kind."""
    left = dict.fromkeys(kinds, count)
    for triple in make_triples("seen-artists", "validation", sprites.concepts):
        if left.get(triple.kind):
            left[triple.kind] -= 1
            yield triple
        if not any(left.values()):
            return


def swapped(scene: Scene, number: int) -> Scene:
    """A scene in which the two things have changed roles: said in the same words."""
    plan = read_plan(scene)
    turned = plan._replace(concepts=plan.concepts[::-1], styles=plan.styles[::-1])
    return lay_out(np.random.default_rng([SEED, number]), turned)


def lone_scene(concept: int, number: int) -> Scene:
    """A scene of one thing."""
    rng = np.random.default_rng([SEED, concept, number])
    plan = sample_plan(rng, [(concept, concept)], ARTISTS["seen-artists"], single=1)
    return lay_out(rng, plan)


def nouns(plan: Plan, concepts: tuple[str, ...]) -> list[str]:
    """What the things are called, with articles and without sizes."""
    words = (describe(alone(plan, i), concepts, (False,), False) for i in range(len(plan.concepts)))
    return list(words)


def alone(plan: Plan, thing: int) -> Plan:
    """What can be said of one of a plan's things."""
    concepts, styles, sizes = ((part[thing],) for part in plan[:3])
    return Plan(concepts, styles, sizes, None, plan.background)


def save(scene: Scene, sprites: Sprites, path: Path) -> None:
    """Writes the picture as a JPEG or PNG, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(scene, sprites, "png" if path.suffix == ".png" else "jpeg"))


def encoded(scene: Scene, sprites: Sprites, form: str) -> bytes:
    """The picture as a file holds it; colours of a JPEG are kept at full resolution."""
    buffer = io.BytesIO()
    options = {} if form == "png" else {"quality": QUALITY, "subsampling": 0}
    Image.fromarray(draw(scene, sprites)).save(buffer, form, **options)
    return buffer.getvalue()
