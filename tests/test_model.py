"""Encoding pictures and captions: what a row gives does not depend on the others."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.model import padded_chunks
from tests.random_model import random_model

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_chunks_have_one_shape():
    rows = np.arange(70)
    assert [chunk.tolist()[-1] for chunk in padded_chunks(rows, 32)] == [31, 63, 69]
    assert {len(chunk) for chunk in padded_chunks(rows, 32)} == {32}
    assert [len(chunk) for chunk in padded_chunks(rows[:5], 32)] == [8]
    assert [len(chunk) for chunk in padded_chunks(rows[:1], 32)] == [1]
    assert padded_chunks(rows[:3], 32)[0].tolist() == [0, 1, 2, 2]


def test_captions_alone_and_among_others(model):
    captions = [f"a cat and {number}" for number in range(33)]
    states = model.encode_texts(captions)
    assert states.shape == (33, 77, 12) and states.dtype == jnp.float32
    for row in (0, 32):
        alone = model.encode_texts(captions[row : row + 1])
        np.testing.assert_allclose(alone[0], states[row], rtol=0, atol=TOLERANCE)
    assert np.abs(states[0] - states[32]).max() > 0.1


def test_the_empty_caption_is_a_caption(model):
    assert np.isfinite(model.encode_texts([""])).all()


def test_pictures_alone_and_among_others(model):
    pictures = list(np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8))
    mean, logvar = model.encode_images(pictures)
    assert mean.shape == logvar.shape == (3, *model.latent_shape) == (3, 4, 4, 4)
    assert mean.dtype == logvar.dtype == jnp.float32
    alone = model.encode_images(pictures[2:])
    np.testing.assert_allclose(alone[0][0], mean[2], rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(alone[1][0], logvar[2], rtol=0, atol=TOLERANCE)
    assert np.abs(mean[0] - mean[2]).max() > 0.1
    np.testing.assert_array_equal(model.latents(pictures), 0.18215 * mean)


def test_pixels_are_scaled_once(model):
    """White and black are +1 and -1, also where a picture has no dark pixel."""
    white, grey = np.full((8, 8, 3), 255, np.uint8), np.full((8, 8, 3), 128, np.uint8)
    from dsd_jax.models.vae import AutoencoderKL

    encode = jax.jit(
        lambda x: AutoencoderKL(model.vae).apply(
            {"params": model.params["vae"]}, x, method="encode"
        )
    )
    for picture, value in ((white, 1.0), (grey, 128 / 127.5 - 1)):
        expected, _ = encode(jnp.full((1, 8, 8, 3), value))
        np.testing.assert_allclose(model.encode_images([picture])[0], expected, atol=TOLERANCE)


def test_dtype_is_that_of_the_weights_and_results_are_float32(model):
    half = replace(model, params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), model.params))
    assert model.dtype == jnp.float32 and half.dtype == jnp.bfloat16
    states, expected = half.encode_texts(["a cat"]), model.encode_texts(["a cat"])
    assert states.dtype == jnp.float32
    assert 0 < np.abs(states - expected).max() < 0.1 * np.abs(expected).max()


def test_one_picture_is_not_a_list_of_pictures(model):
    with pytest.raises(UserError, match="images is one picture; put it in a list"):
        model.encode_images(np.zeros((8, 8, 3), np.uint8))
