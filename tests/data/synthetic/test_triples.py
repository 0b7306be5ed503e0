import collections
import hashlib
import itertools

import pytest

from dsd_jax.data.synthetic.scenes import draw, held_out_pairs, read_plan
from dsd_jax.data.synthetic.sprites import STYLES, UNSEEN_STYLE
from dsd_jax.data.synthetic.triples import ARTISTS, KINDS, SPLITS, make_triples

GROUPS = list(itertools.product(ARTISTS, SPLITS))


@pytest.fixture(scope="module")
def triples(sprites):
    return {group: list(make_triples(*group, sprites.concepts)) for group in GROUPS}


@pytest.mark.parametrize("group", GROUPS, ids="/".join)
def test_caption_fits_one_image_and_fails_on_the_other_by_its_kind(
    group, triples, sprites, failed_claims
):
    for triple in triples[group][:300]:
        scenes = triple.positive, triple.negative
        failed = [
            failed_claims(triple.caption, scene, draw(scene, sprites), sprites.concepts)
            for scene in scenes
        ]
        assert failed == [set(), {triple.kind}], triple


@pytest.mark.parametrize("group", GROUPS, ids="/".join)
def test_the_two_scenes_differ_in_the_named_thing_alone(group, triples):
    field = {"subject": "concepts", "object": "concepts", "background": "background"}
    for triple in triples[group]:
        plan, other = read_plan(triple.positive), read_plan(triple.negative)
        name = field.get(triple.kind, f"{triple.kind}s" if triple.kind == "size" else triple.kind)
        assert other._replace(**{name: getattr(plan, name)}) == plan
        if triple.kind in ("subject", "object", "size"):
            changed = [
                a != b for a, b in zip(getattr(plan, name), getattr(other, name), strict=True)
            ]
            assert sum(changed) == 1
            if triple.kind != "size":
                assert changed.index(True) == ("subject", "object").index(triple.kind)
        # The arrangement is drawn anew, or the untouched thing's pixels would tell the two apart.
        assert triple.positive.shade != triple.negative.shade or (
            triple.positive.things != triple.negative.things
        )


def test_kinds_take_turns_and_are_equally_many(triples):
    for (_, split), items in triples.items():
        assert [triple.kind for triple in items] == list(KINDS) * (SPLITS[split] // 5)
    assert SPLITS == {"shots": 2000, "validation": 1000, "test": 2500}


def test_items_use_only_held_out_pairs_and_their_artists(triples, sprites):
    held_out = held_out_pairs(len(sprites.concepts))
    for (artists, _), items in triples.items():
        for scene in itertools.chain(*((t.positive, t.negative) for t in items)):
            assert tuple(sorted(thing.concept for thing in scene.things)) in held_out
        styles = {thing.style for triple in items for thing in triple.positive.things}
        unseen = {STYLES.index(UNSEEN_STYLE)}
        assert styles == (unseen if artists == "unseen-artist" else set(range(7)) - unseen)


def test_no_two_splits_share_a_scene(triples):
    """No two splits have the same things in the same relation, sizes and color, in any style."""
    facts = collections.defaultdict(set)
    for (_, split), items in triples.items():
        for scene in itertools.chain(*((t.positive, t.negative) for t in items)):
            facts[split].add(told_from_either_thing(read_plan(scene)))
    for first, second in itertools.combinations(SPLITS, 2):
        assert not facts[first] & facts[second]
    captions = {
        split: {t.caption for (_, name), items in triples.items() if name == split for t in items}
        for split in SPLITS
    }
    assert len(captions["test"]) > 4000


def told_from_either_thing(plan):
    place = plan.relation if plan.relation % 2 == 0 else plan.relation - 1
    things = list(zip(plan.concepts, plan.sizes, strict=True))
    return tuple(things if place == plan.relation else things[::-1]), place, plan.background


def test_the_image_alone_does_not_tell_which_one_is_meant(triples):
    """Each value that a kind changes is about as often in the right as in the wrong image."""
    counts = collections.defaultdict(lambda: [0, 0])
    for triple in itertools.chain(*triples.values()):
        for i, scene in enumerate((triple.positive, triple.negative)):
            plan = read_plan(scene)
            if triple.kind in ("relation", "background"):
                counts[triple.kind, getattr(plan, triple.kind)][i] += 1
            elif triple.kind == "size":
                counts["size", sum(plan.sizes)][i] += 1
            else:
                counts[triple.kind, plan.concepts[triple.kind == "object"] % 10][i] += 1
    for key, (right, wrong) in counts.items():
        assert abs(right - wrong) < 4 * (right + wrong) ** 0.5, (key, right, wrong)


@pytest.mark.parametrize(
    ("artists", "split", "expected"),
    [
        ("seen-artists", "shots", "6b57cfcd01de7026"),
        ("seen-artists", "validation", "9ea904dcd72c7a7c"),
        ("seen-artists", "test", "6df56c3c5754746b"),
        ("unseen-artist", "shots", "888a0beb45bbddf0"),
        ("unseen-artist", "validation", "138cd45d3351fe43"),
        ("unseen-artist", "test", "7af877bb80d98853"),
    ],
)
def test_items_are_the_same_on_every_machine(artists, split, expected, triples, sprites):
    """If this must change, raise `Emoji.VERSION`: prepared copies are found by it."""
    digest = hashlib.sha256()
    for triple in triples[artists, split][:50]:
        digest.update(triple.caption.encode())
        digest.update(draw(triple.positive, sprites).tobytes())
        digest.update(draw(triple.negative, sprites).tobytes())
    assert digest.hexdigest()[:16] == expected
