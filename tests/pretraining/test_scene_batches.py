"""Scenes for pre-training: only permitted artists and pairs; batches depend on seed and step."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from dsd_jax.data.synthetic.scenes import held_out_pairs
from dsd_jax.data.synthetic.sprites import STYLES, UNSEEN_STYLE
from dsd_jax.pretraining.scene_batches import ScenePool, to_pixels, training_stream

COUNT = 400
POOL, BATCH, PASSES = 512, 64, 2
STEPS = POOL // BATCH  # of one pass over a pool


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


def test_images_follow_from_their_key_alone():
    stream = training_stream()
    first, scenes = stream.batch([3, 1, 7], 4)
    stream.batch([3, 1, 8], 4)
    again, same = stream.batch([3, 1, 7], 4)
    assert first.shape == (4, 64, 64, 3) and first.dtype == np.uint8
    np.testing.assert_array_equal(first, again)
    assert scenes == same
    assert (stream.batch([3, 1, 8], 4)[0] != first).any()


def test_pixels():
    pixels = to_pixels(np.array([0, 255, 51], np.uint8))
    assert pixels.dtype == np.float32
    np.testing.assert_allclose(pixels, [-1, 1, -0.6], atol=1e-6)


class NumberStream:
    """A stream whose images and scenes are numbers, different for each key and position."""

    sprites = SimpleNamespace(concepts=("cat",))

    def __init__(self):
        self.keys = []

    def batch(self, key, count):
        self.keys.append(tuple(key))
        first = 10_000 * key[2] + 1_000 * key[3]
        return np.arange(first, first + count), list(range(first, first + count))


def number_pool(stream=None):
    encode = lambda images: images.astype(float)  # noqa: E731
    return ScenePool(stream or NumberStream(), encode, seed=0, size=POOL, passes=PASSES)


@pytest.fixture(scope="module")
def batches():
    """The images and scenes of each step for two pools and one step more."""
    pool = number_pool()
    return [pool.batch(step, BATCH) for step in range(2 * PASSES * STEPS + 1)]


def test_each_image_of_a_pool_is_used_once_a_pass(batches):
    for number in range(2):
        of_pool = batches[number * PASSES * STEPS : (number + 1) * PASSES * STEPS]
        counts = Counter(image for images, _ in of_pool for image in images.tolist())
        assert len(counts) == POOL and set(counts.values()) == {PASSES}
        first, second = (
            [image for images, _ in part for image in images]
            for part in (of_pool[:STEPS], of_pool[STEPS:])
        )
        assert first != second and sorted(first) == sorted(second)
    assert not {*batches[0][0]} & {*batches[-1][0]}


def test_scenes_go_with_their_images(batches):
    for images, scenes in batches:
        assert images.tolist() == scenes


def test_a_resumed_run_sees_the_same(batches):
    pool = number_pool()
    for step in (2 * PASSES * STEPS, 5, PASSES * STEPS + 1):
        np.testing.assert_array_equal(pool.batch(step, BATCH)[0], batches[step][0])


def test_pools_are_drawn_once_while_they_last():
    stream = NumberStream()
    pool = number_pool(stream)
    for step in range(PASSES * STEPS):
        pool.batch(step, BATCH)
    assert stream.keys == [(0, 3, 0, 0), (0, 3, 0, 1)]
