"""`match_scores`: the matrix of scores from images and captions."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dsd_jax
from dsd_jax.config import score_spec
from dsd_jax.diffusion import noising
from dsd_jax.errors import UserError
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import match_terms
from dsd_jax.matching.forward import NORMS, all_outputs
from dsd_jax.matching.match_scores import pixel_key
from dsd_jax.models.params import weights_digest
from dsd_jax.prompts.prompt_compatibility import same_timesteps, timesteps_asked
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from tests.random_model import random_model

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def picture():
    return np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)


@pytest.fixture(scope="module")
def score(model, picture):
    """One picture and one caption at one timestep: one compilation for each method."""

    def call(images=None, captions=("a cat",), method="dsd", **options):
        images = [picture] if images is None else images
        return dsd_jax.match_scores(
            model, images, captions, method=method, chunk=2, **{"timesteps": 1} | options
        )

    return call


@pytest.fixture(scope="module")
def trained(model):
    """Return a LoRA with random numbers, as if trained."""
    rng = np.random.default_rng(1)
    lora = init_lora(model.unet, jax.random.key(0), rank=2)
    return {"lora": jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), lora)}


def test_whatever_a_image_comes_as(score, picture, tmp_path):
    Image.fromarray(picture).save(tmp_path / "picture.png")
    expected = score()
    for same in (str(tmp_path / "picture.png"), Image.fromarray(picture)):
        np.testing.assert_array_equal(score([same]), expected)


def test_what_the_score_is_made_of(model, score, picture):
    """Scores are made of latents, keyed noise, the UNet's outputs and a formula."""
    steps = score_spec.timesteps(2)
    key = np.array([pixel_key(picture)], np.uint32)
    noise = noising.keyed_noise(np.full(2, 7), key, steps, model.latent_shape)
    wanted = all_outputs(model.unet)._replace(norms=tuple(NORMS))
    latents = model.latents([picture])
    terms = match_terms(model, latents, ["a cat"], noise, steps, outputs=wanted, chunk=2)
    layers = score_functions.chosen_layers(model.unet)
    for method in score_spec.METHODS:
        np.testing.assert_allclose(
            score(method=method, timesteps=2, seed=7),
            score_functions.score(terms, method, layers),
            rtol=1e-6,
            atol=TOLERANCE,
        )
    every = score_functions.chosen_layers(model.unet, "all")
    np.testing.assert_allclose(
        score(method="attention", timesteps=2, seed=7, layers="all"),
        score_functions.score(terms, "attention", every),
        rtol=0,
        atol=TOLERANCE,
    )


def test_noise_is_of_seed_and_pixels(score, picture):
    assert pixel_key(picture) == pixel_key(picture.copy())
    assert pixel_key(picture) != pixel_key(255 - picture)
    assert 0 <= pixel_key(picture) < 2**32
    twice = score([picture, picture])
    np.testing.assert_allclose(twice[0], twice[1], rtol=0, atol=TOLERANCE)
    assert abs(score(seed=1) - score(seed=2)).item() > 1e-3


def test_prompts_from_a_tree_or_a_folder(score, trained, tmp_path):
    with_prompts = score(prompts=trained)
    assert abs(with_prompts - score()).item() > 1e-3
    write_prompts(tmp_path / "prompts", trained, {})
    for where in (tmp_path / "prompts", str(tmp_path / "prompts")):
        np.testing.assert_array_equal(score(prompts=where), with_prompts)


def test_a_folder_of_prompts_decides_method_timesteps_and_weights(model, score, trained, tmp_path):
    digest = weights_digest(model.params)
    about = {
        "recipe": {"methods": ["noise"]},
        "timesteps": score_spec.timesteps(1).tolist(),
        "weights_digest": digest,
    }
    write_prompts(tmp_path / "own", trained, about)
    own = score(method=None, timesteps=None, prompts=tmp_path / "own")
    np.testing.assert_array_equal(own, score(method="noise", prompts=trained))
    with pytest.raises(UserError, match="was learned for noise, not for dsd"):
        score(prompts=tmp_path / "own")
    forced = score(prompts=tmp_path / "own", force=True)
    np.testing.assert_array_equal(forced, score(prompts=trained))

    write_prompts(tmp_path / "other", trained, {"weights_digest": digest[::-1], "weights": "x"})
    with pytest.raises(UserError, match="learned on other weights than those of random"):
        score(prompts=tmp_path / "other")
    with pytest.raises(UserError, match="learned on other weights"):
        dsd_jax.explain(model, np.zeros((8, 8, 3), np.uint8), "a cat", prompts=tmp_path / "other")


def test_weights_have_the_digest_of_the_dtype_that_prompts_were_learned_in():
    params = {"kernel": np.linspace(0, 1, 7, dtype=np.float32), "scale": np.float32(0.3)}
    coarse = {"kernel": params["kernel"].astype(jnp.bfloat16), "scale": params["scale"]}
    assert weights_digest(params, np.dtype(jnp.bfloat16)) == weights_digest(coarse)
    assert weights_digest(params) != weights_digest(coarse)


def test_numbers_of_timesteps_that_ask_for_the_same():
    assert timesteps_asked(score_spec.timesteps(4).tolist()) == 4
    assert same_timesteps(timesteps_asked(score_spec.timesteps(50).tolist()), 50)
    assert not same_timesteps(4, 5)


def test_untrained_prompts_are_no_prompts(model, score):
    for method in ("attention", "dsd"):
        lora = {"lora": init_lora(model.unet, jax.random.key(0))}
        np.testing.assert_allclose(
            score(method=method, prompts=lora), score(method=method), rtol=1e-6
        )
        weights = {"weights": {method: {"timesteps": jnp.zeros(1)}}}
        np.testing.assert_array_equal(score(method=method, prompts=weights), score(method=method))


def test_weights_count_for_their_own_method(model, score):
    layer = score_functions.chosen_layers(model.unet)[0]
    prompts = {"weights": {"noise": {"lse": {layer: jnp.ones(2)}}}}
    np.testing.assert_array_equal(score(prompts=prompts), score())
    lse = score(method="attention", layers=layer)  # the mean of two heads
    np.testing.assert_allclose(
        score(method="noise", prompts=prompts), score(method="noise") + 2 * lse, rtol=1e-5
    )


def test_the_empty_caption_stays_the_frozen_models(model, score, picture, trained):
    """`match_terms` and `match_scores` apply prompts to captions alone, unless told otherwise."""
    steps = score_spec.timesteps(1)
    noise = noising.keyed_noise(
        np.zeros(1, int), np.array([pixel_key(picture)], np.uint32), steps, model.latent_shape
    )
    terms = partial(match_terms, model, model.latents([picture]), ["a cat"], noise, steps, chunk=2)
    tokens = {"tokens": init_tokens(model.unet, jax.random.key(0))}
    for prompts in (trained, tokens):
        with_prompts, frozen = terms(prompts=prompts), terms()
        assert np.abs(with_prompts.error - frozen.error).max() > 1e-4
        for ours, theirs in (
            (with_prompts.error_uncond, frozen.error_uncond),
            *((with_prompts.lse_uncond[layer], x) for layer, x in frozen.lse_uncond.items()),
        ):
            np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=TOLERANCE)
        everywhere = terms(prompts=prompts, prompt_empty_caption=True)
        assert np.abs(everywhere.error_uncond - frozen.error_uncond).max() > 1e-4
        np.testing.assert_allclose(everywhere.error, with_prompts.error, rtol=1e-6, atol=TOLERANCE)
        yardstick = frozen.error_uncond[:, None] ** 2
        expected = yardstick - with_prompts.error**2
        np.testing.assert_allclose(  # a small difference of large numbers
            score(method="itm", prompts=prompts), expected[..., 0], atol=1e-5 * yardstick.max()
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "clip"},
            "method 'clip' is unknown; expected one of attention, noise, ",
        ),
        ({"layers": "mid"}, "layer 'mid' is unknown; expected 'all' or some of down_blocks.0"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"seed": 2**32}, "seed is 4294967296; expected a whole number from 0 to 4294967295"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
        ({"captions": ["a cat", " "]}, "caption 2 is empty"),
        ({"captions": []}, "no caption"),
        ({"images": []}, "images is empty"),
        ({"images": ["nowhere.png"]}, "nowhere.png is missing"),
        ({"prompts": "nowhere"}, "nowhere holds no prompts"),
        ({"prompts": {"lora": {"mid": {}}}}, "trained for another model"),
    ],
)
def test_mistakes(score, options, message):
    with pytest.raises(UserError, match=message):
        score(**options)


def test_scores_that_are_not_finite(model, picture):
    huge = dict(model.params, unet=jax.tree.map(lambda x: x * 1e30, model.params["unet"]))
    broken = dataclasses.replace(model, params=huge)
    with pytest.raises(UserError, match="1 of 1 scores by random are not finite; the weights are"):
        dsd_jax.match_scores(broken, [picture], ["a cat"], method="dsd", chunk=2, timesteps=1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "tiny"}, "model is 'tiny'; expected what dsd_jax.load returns"),
        ({"prompts": 3}, "prompts is 3; expected what dsd_jax.learn returns, a folder"),
        ({"timesteps": "3"}, "timesteps is '3'; expected a whole number"),
    ],
)
def test_values_of_another_type_are_told(model, picture, change, expected):
    arguments = {"model": model, "images": [picture], "captions": ["a cat"], **change}
    with pytest.raises(UserError, match=expected):
        dsd_jax.match_scores(**arguments)
