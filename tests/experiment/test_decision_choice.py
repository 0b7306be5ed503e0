"""Which decisions a report shows, and the maps of their words."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.benchmarks.splits import Split
from dsd_jax.experiment import decision_choice
from dsd_jax.experiment.decision_choice import SHOWN, most_confident, pick_decisions, with_maps
from dsd_jax.prompts.prompt_params import init_lora
from dsd_jax.statistics import metrics
from dsd_jax.statistics.results import Series
from tests.few_shots import COUNT, examples, few_model, pictures

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def split():
    return Split("unseen-artist/test", examples(), list(range(COUNT)))


@pytest.fixture(scope="module")
def decisions(split):
    scores = np.stack([np.arange(COUNT), np.full(COUNT, 2.5)], axis=1).astype(float)[..., None]
    scores[0] = 1.0  # a tie is not right
    one = Series("dsd", "lora-8", "unseen-artist", metrics.outcomes(scores))
    return pick_decisions(split, one, scores)


def test_the_most_confident_of_each_kind_in_turn():
    confidence = np.array([5.0, 4.0, 9.0, 1.0, 2.0, 8.0])
    kinds = ["size", "size", "size", "relation", "object", "size"]
    assert most_confident(confidence, kinds, confidence < 9) == [5, 4, 3, 0, 1]
    assert most_confident(np.arange(10.0), ["all"] * 10, np.ones(10, bool)) == [9, 8, 7, 6, 5, 4]


def test_shown_decisions(split, decisions):
    assert [decision.right for decision in decisions] == [False] * 3 + [True] * SHOWN
    wrong, right = decisions[:3], decisions[3:]
    assert [decision.caption for decision in wrong] == [f"a cat and {i}" for i in (1, 2, 0)]
    assert len({decision.kind for decision in right}) == 5
    margins = [decision.margin for decision in right]
    assert margins == sorted(margins[:5], reverse=True) + margins[5:]
    first = right[0]
    assert (first.positive_score, first.negative_score) == (COUNT - 1, 2.5)
    assert (first.method, first.prompts, first.split) == ("dsd", "lora-8", "unseen-artist")
    np.testing.assert_array_equal(first.positive, pictures()[COUNT - 1, 0])
    np.testing.assert_array_equal(first.negative, pictures()[COUNT - 1, 1])


def test_images_keep_their_shape():
    """They are asked for as they are, and only shrunk."""
    sizes = []

    def read(key, size):
        sizes.append(size)
        return np.zeros((100, 800, 3), np.uint8)

    split = Split("test", examples(2)._replace(read=read), [0, 1])
    scores = np.array([[[1.0], [0.0]]] * 2)
    for decision in pick_decisions(split, Series("itm", None, "test", {}), scores):
        assert decision.positive.shape == decision.negative.shape == (40, 320, 3)
    assert set(sizes) == {0}


def test_shown_captions():
    """An item of one image shows it with its caption and with the best wrong one."""
    source = examples(2)._replace(
        captions=[("right", "near", "far")] * 2, images=[((0, 0),), ((1, 0),)]
    )
    split = Split("test", source, [0, 1])
    scores = np.array([[[3.0, 2.0, 1.0]], [[1.0, 0.0, 5.0]]])
    wrong, right = pick_decisions(split, Series("itm", None, "test", {}), scores)
    assert (wrong.caption, wrong.other_caption, wrong.negative_score) == ("right", "far", 5.0)
    assert (right.other_caption, right.negative_score) == ("near", 2.0)
    np.testing.assert_array_equal(right.negative, pictures(2)[0, 0])


def test_words_have_maps_under_the_prompts_that_decided(decisions):
    model = few_model()
    lora = init_lora(model.unet, jax.random.key(0), rank=2)
    lora = jax.tree.map(lambda x: x + jnp.float32(0.5), lora)
    zero, learned = (
        with_maps(model, decisions[:1], {"lora-8": prompts})[0] for prompts in ({}, {"lora": lora})
    )
    assert [word for word, _ in zero.positive_maps] == ["cat", "1"]  # not "a" and "and"
    for maps, image in ((zero.positive_maps, zero.positive), (zero.negative_maps, zero.negative)):
        assert all(pixels.shape == image.shape and pixels.dtype == np.uint8 for _, pixels in maps)
    assert (zero.positive_maps[0].pixels != learned.positive_maps[0].pixels).any()
    assert with_maps(model, decisions[:1], {})[0].positive_maps == ()  # prompts that are not known


def test_maps_are_for_wrong_and_right_ones_in_turn_while_there_is_time(decisions, monkeypatch):
    seconds = itertools.count(1.0)
    monkeypatch.setattr(decision_choice.time, "monotonic", lambda: next(seconds))
    monkeypatch.setattr(decision_choice, "_word_maps", lambda *_: ["a map"])
    found = with_maps(few_model(), decisions, {"lora-8": {}}, seconds=2.5)
    assert [bool(decision.positive_maps) for decision in found] == [
        *(True, True, False),  # wrong
        *(True, False, False, False, False, False),
    ]
    found = with_maps(few_model(), decisions, {"lora-8": {}}, seconds=1000)
    assert all(decision.positive_maps for decision in found)
