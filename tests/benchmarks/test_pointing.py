"""Pointing accuracy: boxes are where the things are drawn, and a word's map is judged by them."""

import numpy as np
import pytest

import dsd_jax
from dsd_jax.benchmarks.pointing import pointing_items, points_at
from dsd_jax.diffusion.tokenization import caption_words
from dsd_jax.matching.forward import finest_layers

FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def model():
    return dsd_jax.load("tiny")


@pytest.fixture(scope="module")
def items(model):
    return pointing_items(model, "seen-artists", 40)


def test_things_are_named_and_drawn_where_their_boxes_are(model, items):
    assert len(items.things) == 80 and 0.1 < items.chance < 0.25
    for thing in items.things[:10]:
        words, spans = caption_words(model.tokenizer, items.captions[thing.scene])
        name = words[[start for start, _ in spans].index(thing.tokens[0])]
        assert name in items.captions[thing.scene].split()
        assert thing.other != items.captions[thing.scene]
        left, top, side = thing.box
        inside = items.pixels[thing.scene, top : top + side, left : left + side]
        ground = items.pixels[thing.scene, 0, 0].astype(int)
        assert np.abs(inside.astype(int) - ground).max() > 40


def test_a_map_points_at_the_box_that_holds_its_maximum():
    heat = np.zeros((8, 8))
    heat[1, 6] = 1.0  # pixels 48 to 55 across, 8 to 15 down
    assert points_at(heat, (45, 5, 20))
    assert not points_at(heat, (5, 45, 20))


def test_the_finest_layers_are_those_with_most_queries(model):
    assert finest_layers(model.unet)[0] == FIRST
    assert len(finest_layers(model.unet)) == 3
