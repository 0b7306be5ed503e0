"""The reading task: what it asks for, and that a text tower learns it."""

import jax
import numpy as np
import optax
import pytest

from dsd_jax.data.synthetic.scenes import RELATIONS, Plan, caption, lay_out
from dsd_jax.data.synthetic.sprites import load_sprites
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.pretraining import caption_reading_phase as reading
from dsd_jax.pretraining.train_phase import create_state, make_update
from tests.random_model import random_model

NAMES = ("cat", "apple", "fish")


@pytest.mark.parametrize("relation", range(len(RELATIONS)))
def test_sides_are_what_the_relation_says(relation):
    plan = Plan((2, 0), (0, 0), (1, 1), relation, 0)
    scene = lay_out(np.random.default_rng(0), plan)
    (labels,) = reading.side_labels([scene], ["a fish beside a cat"], NAMES)
    first, other = scene.things
    expected = {
        "left": min(first, other, key=lambda thing: thing.left).concept,
        "right": max(first, other, key=lambda thing: thing.left).concept,
        "above": min(first, other, key=lambda thing: thing.top).concept,
        "below": max(first, other, key=lambda thing: thing.top).concept,
    }
    here = ("left", "right") if relation < 2 else ("above", "below")
    assert labels.dtype == np.int32
    for side, (concept, size) in zip(reading.SIDES, labels, strict=True):
        assert concept == (expected[side] if side in here else len(NAMES))
        assert size == reading.UNSAID


def test_sizes_are_what_the_caption_says_and_an_empty_one_says_nothing():
    scene = lay_out(np.random.default_rng(0), Plan((1, 0), (0, 0), (2, 0), 0, 0))
    texts = ["a big apple to the left of a small cat", "an apple to the left of a small cat", ""]
    labels = reading.side_labels([scene] * 3, texts, NAMES)[:, :2]  # left and right
    assert labels.tolist() == [[[1, 2], [0, 0]], [[1, 1], [0, 0]], [[3, 1], [3, 1]]]


def test_no_name_is_the_end_of_anothers_sentence():
    """Then the word before a name is about that thing."""
    names = load_sprites().concepts
    for name in names:
        for other in names:
            assert name == other or not f" {other} ".startswith(f" {name} ")


def test_one_thing_stands_nowhere_in_particular():
    scene = lay_out(np.random.default_rng(0), Plan((1,), (0,), (1,), None, 0))
    assert reading.side_labels([scene], ["a small apple"], NAMES).tolist() == [[[3, 1]] * 4]


def test_a_reader_tells_chance_before_it_has_learned():
    reader = reading.init_reader(jax.random.key(0), 12, 3)
    states = np.zeros((5, 77, 12), np.float32)
    concepts, sizes = reading.read(reader, states)
    assert concepts.shape == (5, 4, 4) and sizes.shape == (5, 4, 3)
    value, _ = reading.reading_loss(reader, states, np.zeros((5, 4, 2), np.int32))
    np.testing.assert_allclose(value, np.log(4) + np.log(3), rtol=1e-6)


def test_a_tower_learns_who_is_where():
    """Captions that differ in nothing but the order of two nouns, or in the relation's word."""
    model = random_model()
    concepts, rng = NAMES[:2], np.random.default_rng(0)
    scenes = [
        lay_out(rng, Plan((one, 1 - one), (0, 0), (1, 1), relation, 0))
        for one in (0, 1)
        for relation in range(4)
    ]
    texts = [caption(scene, concepts, rng) for scene in scenes]
    batch = tokenize(model.tokenizer, texts), reading.side_labels(scenes, texts, concepts)
    optimizer = optax.adam(0.01)
    reader = reading.init_reader(jax.random.key(0), model.text.hidden_size, 2)
    params = {"text": jax.tree.map(np.array, model.params["text"]), "reader": reader}
    state = create_state(params, optimizer)
    update = make_update(reading.reading_gradients(model.text), optimizer)
    history = []
    for _ in range(150):
        state, metrics = update(state, batch)
        history.append(float(metrics["loss"]))
    assert history[0] > 1.5 and history[-1] < 0.05
    assert metrics["read"] == 1.0
