"""The benchmark's items: a caption, a scene of which it is true and one of which it is not.

As in ComVG, the two scenes differ in one thing that the caption names. Which one that is, the
item's kind, and all that is random follow from (artists, split, number of the item) alone.
"""

import zlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.data.synthetic.scenes import (
    COLOURS,
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
KINDS = ("subject", "object", "relation", "size", "background")
ARTISTS = {
    "seen-artists": tuple(i for i, style in enumerate(STYLES) if style != UNSEEN_STYLE),
    "unseen-artist": (STYLES.index(UNSEEN_STYLE),),
}
# Few-shot examples are drawn from `shots`; all settings are chosen on `validation`.
SPLITS = {"shots": 2000, "validation": 1000, "test": 2500}
SMALL, BIG = 0, 2


class Triple(NamedTuple):
    """One item. The caption fits `positive` and, because of `kind` alone, not `negative`."""

    caption: str
    kind: str
    positive: Scene
    negative: Scene


def make_triples(artists: str, split: str, concepts: Sequence[str]) -> Iterator[Triple]:
    """All items of a split in order: the kinds take turns, every pair of things is a held-out one.

    artists: a key of ARTISTS. split: a key of SPLITS. concepts: the names of the sprites.
    """
    pairs = sorted(held_out_pairs(len(concepts)))
    for i in range(SPLITS[split]):
        seed = SEED, list(ARTISTS).index(artists), list(SPLITS).index(split), i
        rng = np.random.default_rng(seed)
        yield make_triple(rng, KINDS[i % len(KINDS)], split, pairs, ARTISTS[artists], concepts)


def make_triple(rng, kind, split, pairs, styles, concepts) -> Triple:
    """One item of `kind`: things from `pairs` in `styles`, plans that belong to `split`."""
    while True:
        plan = sample_plan(rng, pairs, styles, single=0)
        which = int(rng.integers(2))  # the thing whose size a `size` item is about
        if kind == "size":
            plan = resize(plan, which, SMALL if rng.random() < 0.5 else BIG)
        changed = change(rng, plan, kind, which, pairs)
        if split_of(plan) == split == split_of(changed):
            break
    named = [bool(coin) for coin in rng.random(3) < 0.5]
    if kind == "size":
        named[which] = True
    caption = describe(plan, concepts, named[:2], named[2] or kind == "background")
    return Triple(caption, kind, lay_out(rng, plan), lay_out(rng, changed))


def change(rng, plan: Plan, kind: str, which: int, pairs: Sequence) -> Plan:
    """`plan` with the one thing changed that `kind` names.

    The new value is as likely as the old one, so that neither scene looks like the changed one.
    """
    subject, thing = plan.concepts
    if kind == "subject":
        return plan._replace(concepts=(other_partner(rng, thing, subject, pairs), thing))
    if kind == "object":
        return plan._replace(concepts=(subject, other_partner(rng, subject, thing, pairs)))
    if kind == "relation":
        return plan._replace(relation=INVERSE[plan.relation])
    if kind == "size":
        return resize(plan, which, BIG if plan.sizes[which] == SMALL else SMALL)
    step = 1 + int(rng.integers(len(COLOURS) - 1))
    return plan._replace(background=(plan.background + step) % len(COLOURS))


def resize(plan: Plan, which: int, size: int) -> Plan:
    """`plan` with thing `which` of class `size`."""
    sizes = list(plan.sizes)
    sizes[which] = size
    return plan._replace(sizes=tuple(sizes))


def other_partner(rng, concept: int, present: int, pairs: Sequence) -> int:
    """A concept other than `present` that forms one of `pairs` with `concept`."""
    partners = [a + b - concept for a, b in pairs if concept in (a, b)]
    partners.remove(present)
    return partners[rng.integers(len(partners))]


def split_of(plan: Plan) -> str:
    """The one split in which `plan` may occur, by anyone's hand and told from either thing."""
    (first, second), sizes, relation = plan.concepts, plan.sizes, plan.relation
    if first > second:
        first, second, sizes, relation = second, first, sizes[::-1], INVERSE[relation]
    facts = first, second, *sizes, relation, plan.background
    return list(SPLITS)[zlib.crc32(repr(facts).encode()) % len(SPLITS)]
