"""Unit vectors of images and captions: they depend on neither the batch nor the devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from dsd_jax.clip.clip_model import Clip
from dsd_jax.distributed.sharding import AXES
from dsd_jax.errors import UserError
from tests.random_clip import random_clip

CAPTIONS = ["a cat", "a dog above a big fish", "a tree on a blue background"]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return random_clip()


def pictures(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 8, 8, 3), np.uint8)


def test_embeddings_are_unit_vectors(clip):
    images, texts = clip.embed_images(pictures(3)), clip.embed_texts(CAPTIONS)
    assert images.shape == texts.shape == (3, 8) and images.dtype == texts.dtype == jnp.float32
    for vectors in (images, texts):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)
        assert np.abs(vectors[0] - vectors[1]).max() > 0.05


def test_a_row_does_not_depend_on_the_others(clip):
    pixels = pictures(5)
    apart = jnp.concatenate([clip.embed_images(pixels[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(clip.embed_images(pixels), apart, atol=1e-6)
    apart = jnp.concatenate([clip.embed_texts([caption]) for caption in CAPTIONS])
    np.testing.assert_allclose(clip.embed_texts(CAPTIONS), apart, atol=1e-6)


def test_more_rows_than_a_chunk(clip, monkeypatch):
    pixels = pictures(7)
    whole = clip.embed_images(pixels)
    monkeypatch.setattr("dsd_jax.clip.clip_model._IMAGE_CHUNK", 0)  # one picture at a time
    np.testing.assert_allclose(clip.embed_images(pixels), whole, atol=1e-6)


def test_scores_of_items(clip):
    pixels = pictures(4).reshape(2, 2, 8, 8, 3)
    captions = [CAPTIONS, CAPTIONS[::-1]]
    scores = clip.item_scores(pixels, captions)
    assert scores.shape == (2, 2, 3)
    images, texts = clip.embed_images(pixels[1]), clip.embed_texts(captions[1])
    np.testing.assert_allclose(scores[1], np.exp(2.0) * images @ texts.T, rtol=1e-5, atol=1e-5)
    assert clip.logit_scale == pytest.approx(np.exp(2.0))


def test_16_bits(clip):
    half = Clip(
        clip.name,
        clip.config,
        jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim else x, clip.params),
        clip.tokenizer,
        clip.normalize,
    )
    assert half.dtype == jnp.bfloat16
    images = half.embed_images(pictures(3))
    assert images.dtype == jnp.float32
    np.testing.assert_allclose(images, clip.embed_images(pictures(3)), atol=0.05)


def test_pixels_are_normalized_as_the_clip_says(clip):
    other = Clip(
        clip.name,
        clip.config,
        clip.params,
        clip.tokenizer,
        clip.normalize._replace(mean=(0.5, 0.5, 0.5)),
    )
    difference = clip.embed_images(pictures(3)) - other.embed_images(pictures(3))
    assert np.abs(difference).max() > 1e-3


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 9, 8, 3), np.uint8), np.zeros((2, 8, 8, 3)), np.zeros((8, 8, 3), "u1")]
)
def test_pixels_of_another_kind(clip, pixels):
    with pytest.raises(UserError, match=r"expected uint8 \(\.\.\., 8, 8, 3\) with 4 dims"):
        clip.embed_images(pixels)


@pytest.mark.parametrize("captions", [[["a cat"]], [["a cat"], ["a dog", "a fish"]]])
def test_items_of_unequal_captions(clip, captions):
    with pytest.raises(UserError, match="expected one list for each item, all of one length"):
        clip.item_scores(np.zeros((2, 1, 8, 8, 3), np.uint8), captions)


def test_an_empty_caption(clip):
    with pytest.raises(UserError, match="caption 2 is empty"):
        clip.embed_texts(["a cat", " "])


def test_the_mesh_is_where_the_weights_lie(clip):
    assert isinstance(clip.mesh, Mesh) and clip.mesh.axis_names == AXES
