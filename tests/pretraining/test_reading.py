"""The reading task: what it asks for, and that a text tower learns it."""

import jax
import numpy as np
import optax
import pytest

from dsd_jax.data.scenes import RELATIONS, Plan, caption, lay_out
from dsd_jax.pretraining import reading
from dsd_jax.tokens import tokenise
from tests.random_model import random_model

NAMES = ("cat", "apple", "fish")


@pytest.mark.parametrize("relation", range(len(RELATIONS)))
def test_sides_are_what_the_relation_says(relation):
    plan = Plan((2, 0), (0, 0), (1, 1), relation, 0)
    scene = lay_out(np.random.default_rng(0), plan)
    (found,) = reading.sides([scene], len(NAMES))
    first, other = scene.things
    expected = {
        "left": min(first, other, key=lambda thing: thing.left).concept,
        "right": max(first, other, key=lambda thing: thing.left).concept,
        "above": min(first, other, key=lambda thing: thing.top).concept,
        "below": max(first, other, key=lambda thing: thing.top).concept,
    }
    here = ("left", "right") if relation < 2 else ("above", "below")
    assert found.dtype == np.int32
    for side, concept in zip(reading.SIDES, found, strict=True):
        assert concept == (expected[side] if side in here else len(NAMES))


def test_one_thing_stands_nowhere_in_particular():
    scene = lay_out(np.random.default_rng(0), Plan((1,), (0,), (1,), None, 0))
    assert reading.sides([scene], 3).tolist() == [[3, 3, 3, 3]]


def test_a_reader_tells_chance_before_it_has_learned():
    reader = reading.init_reader(jax.random.key(0), 12, 3)
    states = np.zeros((5, 77, 12), np.float32)
    logits = reading.read(reader, states)
    assert logits.shape == (5, 4, 4)
    expected = np.zeros((5, 4), np.int32)
    np.testing.assert_allclose(reading.loss(reader, states, expected), np.log(4), rtol=1e-6)


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
    batch = tokenise(model.tokenizer, texts), reading.sides(scenes, 2)
    transform = optax.adam(0.01)
    reader = reading.init_reader(jax.random.key(0), model.text.hidden_size, 2)
    params = {"text": jax.tree.map(np.array, model.params["text"]), "reader": reader}
    state = reading.State(params, transform.init(params))
    update = reading.update_function(model.text, transform)
    history = []
    for _ in range(150):
        state, metrics = update(state, batch)
        history.append(float(metrics["loss"]))
    assert history[0] > 0.8 and history[-1] < 0.05
    assert metrics["read"] == 1.0
