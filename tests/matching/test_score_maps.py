"""Maps of a decision add up to the difference of two scores, for every method."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsd_jax
from dsd_jax.config import score_spec
from dsd_jax.config.score_spec import METHODS
from dsd_jax.diffusion import noising
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import match_terms
from dsd_jax.matching.forward import NORMS, all_outputs, cross_attention_layers
from dsd_jax.matching.match_scores import match_settings, pixel_key
from dsd_jax.matching.score_functions import chosen_layers
from dsd_jax.matching.score_maps import difference_map, spread
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from tests.random_model import random_model

CAPTIONS = ("a cat to the left of an apple", "an apple to the left of a cat")
TOLERANCE = 1e-4


@pytest.fixture(scope="module", autouse=True)
def quick(quickly_compiled):
    """Numbers here are compared with others of the same programs."""


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


def settings_of(model, method, prompts=None, timesteps=2):
    return match_settings(model, prompts, method, timesteps, layers=None, seed=3, force=False)


@pytest.fixture(scope="module")
def outputs(model, pixels):
    """All outputs for both captions, by the code that scores are made of."""
    return partial(outputs_of, model, pixels)


def outputs_of(model, pixels, captions=CAPTIONS, prompts=None):
    steps, key = score_spec.timesteps(2), np.array([pixel_key(pixels)], np.uint32)
    noise = noising.keyed_noise(np.full(2, 3), key, steps, model.latent_shape)
    wanted = all_outputs(model.unet)._replace(norms=tuple(NORMS))
    options = {"outputs": wanted, "chunk": 2, "prompts": prompts}
    return match_terms(model, model.latents([pixels]), captions, noise, steps, **options)


@pytest.fixture(scope="module")
def frozen(outputs):
    return outputs()


def difference(model, terms, method, weights=None) -> float:
    scores = score_functions.score(terms, method, chosen_layers(model.unet), weights)
    return float(scores[0, 0]) - float(scores[0, 1])


@pytest.mark.parametrize("method", METHODS)
def test_the_map_adds_up_to_the_difference_of_scores(model, pixels, frozen, method):
    heat = difference_map(model, pixels, CAPTIONS, settings_of(model, method))
    expected = difference(model, frozen, method)
    assert heat.shape == model.latent_shape[:2] and np.ptp(heat) > 0
    # Those of means over the latent are small: 1e-4 alone would say little of them.
    assert abs(heat.sum() - expected) < min(TOLERANCE, 0.01 * np.abs(heat).sum())


@pytest.mark.parametrize("method", ["itm", "relative"])
def test_against_the_empty_caption_it_adds_up_to_the_score(model, pixels, frozen, method):
    heat = difference_map(model, pixels, (CAPTIONS[0], ""), settings_of(model, method))
    score = score_functions.score(frozen, method, chosen_layers(model.unet))[0, 0]
    assert abs(heat.sum() - score) < TOLERANCE


def numbers(tree):
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape)), tree)


def test_with_prompts_of_every_kind(model, pixels, outputs):
    rng, layers = np.random.default_rng(2), cross_attention_layers(model.unet)
    weights = {
        "lse": {layer: jnp.asarray(rng.normal(size=2)) for layer in layers},
        "lse_uncond": {layers[0]: jnp.ones(2)},
        "timesteps": jnp.asarray([0.4, -0.1]),
    }
    learned = {"lora": init_lora(model.unet, jax.random.key(0), rank=2)}
    learned = numbers(learned | {"tokens": init_tokens(model.unet, jax.random.key(0))})
    terms = outputs(prompts=learned)
    for method, more in (("attention", {}), ("dsd", {"error": jnp.asarray(0.7)}), ("relative", {})):
        prompts = learned | {"weights": {method: weights | more}}
        heat = difference_map(model, pixels, CAPTIONS, settings_of(model, method, prompts))
        expected = difference(model, terms, method, weights | more)
        assert abs(heat.sum() - expected) < TOLERANCE


def test_explanations_have_maps_of_the_images_size(model):
    picture = np.random.default_rng(0).integers(0, 256, (13, 21, 3), np.uint8)
    options = {"method": "relative", "timesteps": 2, "seed": 3}
    explained = dsd_jax.explain(model, picture, CAPTIONS[0], rather_than=CAPTIONS[1], **options)
    scores = dsd_jax.match_scores(model, [picture], CAPTIONS, chunk=2, **options)[0]
    assert explained.difference.shape == (13, 21)
    assert abs(explained.difference.sum() - (scores[0] - scores[1])) < TOLERANCE
    assert abs(explained.score_difference - (scores[0] - scores[1])) < TOLERANCE
    against_nothing = dsd_jax.explain(model, picture, CAPTIONS[0], rather_than=" ", **options)
    assert abs(against_nothing.difference.sum() - scores[0]) < TOLERANCE


@pytest.mark.parametrize("shape", [(4, 4), (13, 21), (3, 9), (1, 64)])
def test_spreading_keeps_the_sum_and_the_place(shape):
    heat = np.zeros((4, 4))
    heat[0, 3], heat[2, 1] = 2.0, -0.5
    found = spread(heat, shape)
    assert found.shape == shape and np.isclose(found.sum(), 1.5)
    row, column = np.unravel_index(found.argmax(), shape)
    assert row < shape[0] / 4 + 1 and column >= shape[1] * 0.7 - 1


def test_spreading_leaves_what_is_flat_nearly_flat():
    found = spread(np.ones((8, 8)), (100, 60))
    np.testing.assert_allclose(found, 64 / 6000, rtol=0.02)
