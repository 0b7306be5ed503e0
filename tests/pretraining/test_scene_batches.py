"""What pre-training sees: by the artists it may see, of the pairs it may see."""

import numpy as np

from dsd_jax.data.synthetic.scenes import held_out_pairs
from dsd_jax.data.synthetic.sprites import STYLES, UNSEEN_STYLE
from dsd_jax.pretraining.scene_batches import to_pixels, training_stream, unseen_stream

COUNT = 400


def styles_of(drawn):
    return {STYLES[thing.style] for scene in drawn for thing in scene.things}


def test_neither_the_unseen_artist_nor_held_out_pairs():
    stream = training_stream()
    _, drawn = stream.batch([0, 1], COUNT)
    assert styles_of(drawn) == set(STYLES) - {UNSEEN_STYLE}
    held_out = held_out_pairs(len(stream.sprites.concepts))
    pairs = {
        tuple(sorted(thing.concept for thing in scene.things))
        for scene in drawn
        if len(scene.things) == 2
    }
    assert len(pairs) > COUNT / 2 and not pairs & held_out


def test_the_unseen_artists_scenes_are_the_same_otherwise():
    _, drawn = unseen_stream().batch([0, 1], 20)
    assert styles_of(drawn) == {UNSEEN_STYLE}


def test_pictures_follow_from_their_key_alone():
    stream = training_stream()
    first, scenes = stream.batch([3, 1, 7], 4)
    stream.batch([3, 1, 8], 4)
    again, same = stream.batch([3, 1, 7], 4)
    assert first.shape == (4, 64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert scenes == same
    assert (stream.batch([3, 1, 8], 4)[0] != first).any()


def test_pixels():
    found = to_pixels(np.array([0, 255, 51], np.uint8))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [-1, 1, -0.6], atol=1e-6)
