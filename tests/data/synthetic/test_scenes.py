import collections
import hashlib

import numpy as np
import pytest

from dsd_jax.data.synthetic.scenes import (
    COLOR_NAMES,
    RELATIONS,
    SIDE,
    SIZES,
    Plan,
    Scene,
    Thing,
    allowed_pairs,
    caption,
    describe,
    draw,
    held_out_pairs,
    lay_out,
    read_plan,
    sample_plan,
    sample_scene,
)
from dsd_jax.data.synthetic.sprites import STYLES, UNSEEN_STYLE

NAMES = ("cat", "apple", "hourglass", "unicorn", "ice cream")


def pretraining_batch(rng, count, sprites):
    """Draw scenes by the seen artists with pairs that aren't held out: images and scenes."""
    pairs = allowed_pairs(len(sprites.concepts))
    styles = [i for i, style in enumerate(sprites.styles) if style != UNSEEN_STYLE]
    scenes = [sample_scene(rng, pairs, styles) for _ in range(count)]
    return np.stack([draw(scene, sprites) for scene in scenes]), scenes


@pytest.fixture(scope="module")
def batch(sprites):
    return pretraining_batch(np.random.default_rng(0), 2000, sprites)


def test_every_caption_is_true_of_its_image(sprites, batch, failed_claims):
    images, scenes = batch
    rng = np.random.default_rng(1)
    for image, scene in zip(images, scenes, strict=True):
        for text in (caption(scene, sprites.concepts, rng) for _ in range(3)):
            assert not failed_claims(text, scene, image, sprites.concepts), (text, scene)


def test_captions_can_be_caught_lying(sprites, batch, failed_claims):
    """The check above sees each kind of untruth, so its silence means something."""
    caught = collections.Counter()
    for image, scene in zip(*batch, strict=True):
        wrong = Plan(*read_plan(scene))
        if len(scene.things) == 1:
            continue
        for kind, lie in {
            "subject": wrong._replace(concepts=(unused(wrong), wrong.concepts[1])),
            "object": wrong._replace(concepts=(wrong.concepts[0], unused(wrong))),
            "relation": wrong._replace(relation=(wrong.relation + 1) % 4),
            "size": wrong._replace(sizes=(2 - wrong.sizes[0], wrong.sizes[1])),
            "background": wrong._replace(background=(wrong.background + 1) % 8),
        }.items():
            text = describe(lie, sprites.concepts)
            failed = failed_claims(text, scene, image, sprites.concepts)
            if lie != wrong:
                assert failed == {kind}, (text, scene)
                caught[kind] += 1
    assert len(caught) == 5 and min(caught.values()) > 600


def unused(plan):
    return next(i for i in range(3) if i not in plan.concepts)


def test_pixels_show_what_the_scene_says(sprites, batch):
    """Each thing changes pixels within its square and nowhere else, and what it covers stays seen.

    The things are taken away one by one; the centre of what vanishes stands where it should.
    """
    for image, scene in zip(*(part[:400] for part in batch), strict=True):
        np.testing.assert_array_equal(draw(scene, sprites), image)
        centres = []
        for thing in scene.things:
            rest = scene._replace(things=tuple(t for t in scene.things if t != thing))
            changed = (draw(rest, sprites) != image).any(-1)
            square = np.zeros_like(changed)
            square[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] = True
            assert not (changed & ~square).any()
            alone = (draw(scene._replace(things=(thing,)), sprites) != ground(scene, sprites)).any(
                -1
            )
            assert (changed & alone).sum() > 0.6 * alone.sum(), "mostly hidden"
            centres.append(np.argwhere(alone).mean(0))
        if len(centres) == 2:
            down, right = centres[0] - centres[1]
            along = {0: -right, 1: right, 2: -down, 3: down}[read_plan(scene).relation]
            assert along > 7


def ground(scene, sprites):
    return draw(scene._replace(things=()), sprites)


def test_pretraining_never_shows_held_out_pairs_or_the_unseen_artist(sprites, batch):
    held_out = held_out_pairs(len(sprites.concepts))
    pairs = {tuple(sorted(t.concept for t in s.things)) for s in batch[1] if len(s.things) == 2}
    assert len(pairs) > 1000 and not pairs & held_out
    styles = {thing.style for scene in batch[1] for thing in scene.things}
    assert styles == set(range(7)) - {STYLES.index(UNSEEN_STYLE)}
    assert {thing.concept for scene in batch[1] for thing in scene.things} == set(range(106))


def test_held_out_pairs_are_a_seventh_and_leave_every_concept_a_choice():
    held_out = held_out_pairs(106)
    assert len(held_out) == round(0.15 * 106 * 105 / 2)
    assert all(i < j for i, j in held_out)
    assert held_out == held_out_pairs(106)
    assert not held_out & set(allowed_pairs(106))
    assert len(held_out) + len(allowed_pairs(106)) == 106 * 105 // 2
    assert min(collections.Counter(i for pair in held_out for i in pair).values()) >= 5


def test_plans_are_drawn_evenly():
    rng = np.random.default_rng(2)
    plans = [sample_plan(rng, [(0, 1), (2, 3)], [4, 5]) for _ in range(4000)]
    assert abs(np.mean([p.relation is None for p in plans]) - 0.3) < 0.03
    two = [p for p in plans if p.relation is not None]
    for values, count in (
        ([p.concepts for p in two], 4),
        ([p.styles for p in two], 4),
        ([p.sizes for p in two], len(SIZES) ** 2),
        ([p.relation for p in two], len(RELATIONS)),
        ([p.background for p in plans], len(COLOR_NAMES)),
    ):
        shares = collections.Counter(values)
        assert len(shares) == count
        assert max(shares.values()) < 1.35 * len(values) / count


def test_layouts_fulfil_their_plan_inside_the_image():
    rng = np.random.default_rng(3)
    for _ in range(5000):
        plan = sample_plan(rng, [(0, 1)], [0])
        scene = lay_out(rng, plan)
        assert read_plan(scene) == plan
        for thing in scene.things:
            assert 0 <= thing.left <= SIDE - thing.size and 0 <= thing.top <= SIDE - thing.size
    assert lay_out(rng, plan) != lay_out(rng, plan)


@pytest.mark.parametrize("relation", range(4))
def test_neither_thing_has_a_favorite_place(relation):
    """Turning a relation round mirrors the image's statistics, so no place gives it away."""
    rng = np.random.default_rng(4)
    plan = Plan((0, 1), (0, 0), (1, 1), relation, 0)
    axis = 0 if relation < 2 else 1
    scenes = [lay_out(rng, plan) for _ in range(2000)]
    centres = np.array(
        [[((t.left, t.top)[axis] + t.size / 2) for t in scene.things] for scene in scenes]
    )
    assert abs(centres.sum(1).mean() - SIDE) < 1
    across = np.array([[(t.top, t.left)[axis] + t.size / 2 for t in s.things] for s in scenes])
    np.testing.assert_allclose(across.mean(0), SIDE / 2, atol=1)


@pytest.mark.parametrize(
    ("plan", "text"),
    [
        (Plan((0,), (0,), (0,), None, 2), "a small cat on a red background"),
        (Plan((1,), (0,), (1,), None, 1), "an apple on a grey background"),
        (
            Plan((1, 0), (0, 0), (2, 1), 0, 5),
            "a big apple to the left of a cat on a blue background",
        ),
        (Plan((2, 3), (0, 0), (1, 1), 3, 0), "an hourglass below a unicorn on a white background"),
        (
            Plan((2, 4), (0, 0), (2, 0), 2, 7),
            "a big hourglass above a small ice cream on a pink background",
        ),
    ],
)
def test_sentences(plan, text):
    assert describe(plan, NAMES) == text


def test_sentences_leave_out_what_is_not_named_and_turn_round():
    plan = Plan((0, 1), (0, 0), (0, 2), 2, 3)
    assert describe(plan, NAMES, (False, True), False) == "a cat above a big apple"
    assert describe(plan, NAMES, (False, False), False, 1) == "an apple below a cat"
    left = plan._replace(relation=0)
    assert (
        describe(left, NAMES, (True, True), False, 1) == "a big apple to the right of a small cat"
    )


def test_one_scene_has_every_wording():
    scene = Scene((Thing(0, 0, 18, 0, 20), Thing(1, 0, 32, 30, 20)), 4, (130, 200, 125), (0, 0))
    rng = np.random.default_rng(5)
    assert len({caption(scene, NAMES, rng) for _ in range(300)}) == 16


def test_same_seed_same_bytes(sprites, batch):
    """The hash is the promise that every machine draws the same images and captions."""
    images, scenes = pretraining_batch(np.random.default_rng(0), 300, sprites)
    np.testing.assert_array_equal(images, batch[0][:300])
    rng = np.random.default_rng(1)
    digest = hashlib.sha256(images.tobytes())
    digest.update("\n".join(caption(scene, sprites.concepts, rng) for scene in scenes).encode())
    assert digest.hexdigest()[:16] == "133e9c87b2307a8f"


def test_pairs_and_styles_of_ones_own():
    scene = sample_scene(np.random.default_rng(6), [(7, 9)], [2])
    assert {thing.concept for thing in scene.things} <= {7, 9}
    assert {thing.style for thing in scene.things} == {2}
