"""The benchmark's items: a caption, a scene of which it is true and one of which it is not.

As in ComVG, the two scenes differ in one thing that the caption names. The item's kind, which says
which one, and all that is random follow from (artists, split, number of the item) alone.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.data.synthetic.scenes import (
    COLORS,
    INVERSE,
    Plan,
    Scene,
    describe,
    held_out_pairs,
    lay_out,
    sample_plan,
)
from dsd_jax.data.synthetic.sprites import STYLES, UNSEEN_STYLE

SEED = 20
IMAGES = ("positive", "negative")  # names of a triple's images
KINDS = ("subject", "object", "relation", "size", "background")
ARTISTS = {
    "seen-artists": tuple(i for i, style in enumerate(STYLES) if style != UNSEEN_STYLE),
    "unseen-artist": (STYLES.index(UNSEEN_STYLE),),
}
# Few-shot examples are drawn from `shots`; all settings are chosen on `validation`.
SPLITS = {"shots": 2000, "validation": 1000, "test": 2500}
SMALL, BIG = 0, 2


class Triple(NamedTuple):
    """An item whose caption fits `positive` and, because of `kind` alone, not `negative`."""

    caption: str
    kind: str
    positive: Scene
    negative: Scene


def make_triples(artists: str, split: str, concepts: Sequence[str]) -> Iterator[Triple]:
    """Yield all items of a split in order.

    The kinds take turns, and every pair of things is a held-out one.

    Args:
        artists: a key of ARTISTS.
        split: a key of SPLITS.
        concepts: the names of the sprites.
    """
    pairs = sorted(held_out_pairs(len(concepts)))
    for i in range(SPLITS[split]):
        seed = SEED, list(ARTISTS).index(artists), list(SPLITS).index(split), i
        rng = np.random.default_rng(seed)
        kind = KINDS[i % len(KINDS)]
        while True:
            plans = _sample_plans(rng, kind, pairs, ARTISTS[artists])
            if split_of(plans.positive) == split == split_of(plans.negative):
                break
        yield _make_triple(rng, kind, plans, concepts)


class _Plans(NamedTuple):
    positive: Plan
    negative: Plan
    sized: int  # the thing whose size a `size` item is about


def _sample_plans(
    rng: np.random.Generator, kind: str, pairs: Sequence, styles: Sequence[int]
) -> _Plans:
    """Draw the plans of an item of `kind`: things from `pairs` in `styles`."""
    plan = sample_plan(rng, pairs, styles, single=0)
    sized = int(rng.integers(2))
    if kind == "size":
        plan = _resize(plan, sized, SMALL if rng.random() < 0.5 else BIG)
    return _Plans(plan, _change(rng, plan, kind, sized, pairs), sized)


def _make_triple(
    rng: np.random.Generator, kind: str, plans: _Plans, concepts: Sequence[str]
) -> Triple:
    """Draw an item's wording and its two scenes."""
    named = [bool(coin) for coin in rng.random(3) < 0.5]
    if kind == "size":
        named[plans.sized] = True
    caption = describe(plans.positive, concepts, named[:2], named[2] or kind == "background")
    return Triple(caption, kind, lay_out(rng, plans.positive), lay_out(rng, plans.negative))


def _change(rng: np.random.Generator, plan: Plan, kind: str, sized: int, pairs: Sequence) -> Plan:
    """Return `plan` with the one thing changed that `kind` names.

    The new value is as likely as the old one, so that neither scene looks like the changed one.
    """
    assert plan.relation is not None
    subject, thing = plan.concepts
    if kind == "subject":
        return plan._replace(concepts=(_other_partner(rng, thing, subject, pairs), thing))
    if kind == "object":
        return plan._replace(concepts=(subject, _other_partner(rng, subject, thing, pairs)))
    if kind == "relation":
        return plan._replace(relation=INVERSE[plan.relation])
    if kind == "size":
        return _resize(plan, sized, BIG if plan.sizes[sized] == SMALL else SMALL)
    step = 1 + int(rng.integers(len(COLORS) - 1))
    return plan._replace(background=(plan.background + step) % len(COLORS))


def _resize(plan: Plan, index: int, size: int) -> Plan:
    """Return `plan` with thing `index` of class `size`."""
    sizes = list(plan.sizes)
    sizes[index] = size
    return plan._replace(sizes=tuple(sizes))


def _other_partner(rng: np.random.Generator, concept: int, present: int, pairs: Sequence) -> int:
    """Draw a concept other than `present` that forms one of `pairs` with `concept`."""
    partners = [a + b - concept for a, b in pairs if concept in (a, b)]
    partners.remove(present)
    return partners[int(rng.integers(len(partners)))]


def split_of(plan: Plan) -> str:
    """Return the one split in which `plan` may occur, in any style and in either order."""
    (first, second), sizes, relation = plan.concepts, plan.sizes, plan.relation
    assert relation is not None
    if first > second:
        first, second, sizes, relation = second, first, sizes[::-1], INVERSE[relation]
    facts = first, second, *sizes, relation, plan.background
    return list(SPLITS)[zlib.crc32(repr(facts).encode()) % len(SPLITS)]
