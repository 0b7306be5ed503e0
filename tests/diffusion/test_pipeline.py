"""Encoding images and captions: a row's result does not depend on the others."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsd_jax
from dsd_jax.diffusion.pipeline import padded_chunks
from dsd_jax.errors import UserError
from dsd_jax.models.params import weights_digest
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
    assert np.abs(model.encode_texts([""])).max() > 0.1


def test_the_empty_caption_of_sdxl_is_what_its_folder_says():
    model = random_model(xl=True)
    states, pooled = model.encode_captions(["a cat", ""])
    assert states.shape == (2, 77, 20) and pooled.shape == (2, 10)
    assert np.abs(states[0]).min(axis=-1).max() > 0 and np.abs(pooled[0]).min() > 0
    assert not np.any(states[1]) and not np.any(pooled[1])
    read = replace(model, zero_empty=False).encode_captions(["a cat", ""])
    np.testing.assert_array_equal(read.states[0], states[0])
    assert np.abs(read.states[1]).max() > 0.1 and np.abs(read.pooled[1]).max() > 0.01


def test_what_decides_texts(model):
    """The identity of texts has both of SDXL's encoders in it, and nothing of the VAE."""
    xl = random_model(xl=True)
    params = xl.params | {"text_2": jax.tree.map(lambda x: x + 1, xl.params["text_2"])}
    others = [replace(xl, params=params), replace(xl, zero_empty=False), model]
    found = [model.text_identity() for model in (xl, *others)]
    assert len({(weights_digest(weights), rest) for weights, rest in found}) == 4
    again = replace(model, params=model.params | {"vae": {}}).text_identity()
    assert weights_digest(again[0]) == weights_digest(found[3][0]) and again[1] == found[3][1]


def test_a_vae_that_overflows_in_float16_computes_in_float32(model):
    half = replace(model, params=jax.tree.map(lambda leaf: leaf.astype(jnp.float16), model.params))
    upcast = replace(half, vae=replace(half.vae, force_upcast=True))
    picture = [np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)]
    full = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), half.params)
    expected = replace(model, params=full).latents(picture)
    np.testing.assert_allclose(upcast.latents(picture), expected, rtol=0, atol=TOLERANCE)


def test_images_alone_and_among_others(model):
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


def test_one_image_is_not_a_list_of_images(model):
    with pytest.raises(UserError, match="images is one image; put it in a list"):
        model.encode_images(np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("vae", {"scaling_factor": 0.5}),
        ("vae", {"force_upcast": True}),
        ("vae", {"norm_num_groups": 2}),
        ("text", {"activation": "gelu"}),
        ("text", {"heads": 1}),
        ("text", {"norm_eps": 1e-3}),
    ],
)
def test_identities_hold_the_configs(model, part, change):
    """Encodings under a wrong config.json are not taken for those under the right one."""
    other = replace(model, **{part: replace(getattr(model, part), **change)})
    images = model.image_identity()[1] == other.image_identity()[1]
    texts = model.text_identity()[1] == other.text_identity()[1]
    assert (images, texts) == (part != "vae", part != "text")


def test_identity_of_an_empty_caption_that_is_zeros(model):
    assert replace(model, zero_empty=True).text_identity()[1] != model.text_identity()[1]


def test_a_model_shows_itself_in_one_line():
    assert repr(dsd_jax.load("tiny")) == (
        "<Model tiny: Stable Diffusion, 7.8 M parameters, images of 64x64, float32 on cpu>"
    )
    assert "<Model random: Stable Diffusion XL, " in repr(random_model(xl=True))
    assert "K parameters" in repr(random_model())
