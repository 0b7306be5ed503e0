"""Scores of every method on arrays that are small enough to work out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.config import score_spec
from dsd_jax.errors import UserError
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import Terms, cross_attention_layers
from dsd_jax.models.published_networks import UNETS
from dsd_jax.models.unet_config import UNetConfig
from tests.random_model import UNET

LAYERS = ("down", "mid")


@pytest.fixture(scope="module")
def terms():
    """One picture, two captions, two timesteps, two heads."""
    return Terms(
        lse={
            "down": jnp.array([[[[1.0, 3.0], [2.0, 4.0]], [[0.0, 2.0], [5.0, 5.0]]]]),
            "mid": jnp.array([[[[4.0, 4.0], [1.0, 3.0]], [[3.0, 1.0], [1.0, 1.0]]]]),
        },
        lse_uncond={
            "down": jnp.array([[[2.0, 2.0], [1.0, 5.0]]]),
            "mid": jnp.array([[[0.0, 2.0], [4.0, 2.0]]]),
        },
        error=jnp.array([[[2.0, 4.0], [1.0, 5.0]]]),
        error_uncond=jnp.array([[4.0, 5.0]]),
        norms={
            "l1": jnp.array([[[1.0, 3.0], [2.0, 4.0]]]),
            "huber": jnp.array([[[0.5, 1.5], [1, 2]]]),
        },
    )


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("attention", [[((2 + 4) / 2 + (3 + 2) / 2) / 2, ((1 + 2) / 2 + (5 + 1) / 2) / 2]]),
        ("noise", [[-(4 + 16) / 2, -(1 + 25) / 2]]),
        ("noise-l1", [[-2, -3]]),
        ("noise-huber", [[-1, -1.5]]),
        ("itm", [[((16 - 4) + (25 - 16)) / 2, ((16 - 1) + (25 - 25)) / 2]]),
        ("relative", [[(12 / 16 + 9 / 25) / 2, (15 / 16 + 0) / 2]]),
        ("dsd", [[2.75 + (2 + 1) / 2, 2.25 + (3 + 0) / 2]]),
    ],
)
def test_formulas(terms, method, expected):
    scores = score_functions.score(terms, method, LAYERS)
    assert scores.shape == (1, 2) and scores.dtype == jnp.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6)


def test_only_chosen_layers_count(terms):
    np.testing.assert_allclose(score_functions.score(terms, "attention", ["mid"]), [[3.0, 1.5]])


def test_authors_attention_mixes_in_the_empty_caption(terms):
    expected = [[[(2 + 4 + 2 + 1) / 4, (3 + 2 + 3 + 3) / 4], [(1 + 2 + 3) / 4, (5 + 1 + 6) / 4]]]
    np.testing.assert_allclose(score_functions.authors_attention(terms, LAYERS), expected)


def zeros(terms):
    """Return weights of every part as they are before learning."""
    return {
        "lse": {layer: jnp.zeros(2) for layer in terms.lse},
        "lse_uncond": {layer: jnp.zeros(2) for layer in terms.lse},
        "timesteps": jnp.zeros(2),
        "error": jnp.zeros(()),
    }


@pytest.mark.parametrize("method", score_spec.METHODS)
def test_weights_of_zero_are_the_zero_shot_score(terms, method):
    expected = score_functions.score(terms, method, LAYERS)
    np.testing.assert_array_equal(
        score_functions.score(terms, method, LAYERS, zeros(terms)), expected
    )


def test_weights_are_differences(terms):
    expected = score_functions.score(terms, "dsd", LAYERS)
    weights = zeros(terms)
    weights["lse"]["mid"] = jnp.array([0.5, 0.0])  # of head 0: 4, 1 and 3, 1 at the timesteps
    np.testing.assert_allclose(
        score_functions.score(terms, "dsd", LAYERS, weights),
        expected + 0.5 * np.array([[2.5, 2.0]]),
    )
    weights = zeros(terms)
    weights["lse_uncond"]["down"] = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(score_functions.score(terms, "dsd", LAYERS, weights), expected + 3.5)
    weights = zeros(terms) | {"error": jnp.array(-1.0)}
    attention = score_functions.score(terms, "attention", LAYERS)
    np.testing.assert_allclose(
        score_functions.score(terms, "dsd", LAYERS, weights), attention, rtol=1e-6
    )
    weights = zeros(terms) | {"timesteps": jnp.array([0.5, -0.5])}
    first = score_functions.per_timestep_scores(terms, "dsd", LAYERS)[..., 0]
    np.testing.assert_allclose(
        score_functions.score(terms, "dsd", LAYERS, weights), first, rtol=1e-6
    )


def test_weights_can_be_learned(terms):
    """Every weight moves the score, so that a gradient reaches it."""
    gradients = jax.grad(lambda w: score_functions.score(terms, "dsd", LAYERS, w)[0, 0])(
        zeros(terms)
    )
    for gradient in jax.tree.leaves(gradients):
        assert (np.abs(gradient) > 0).all()


def test_weights_of_other_timesteps(terms):
    with pytest.raises(UserError, match="weights for 3 timesteps but 2 are scored"):
        score_functions.score(terms, "dsd", LAYERS, {"timesteps": jnp.zeros(3)})


def config(**changes):
    return UNetConfig.from_json(UNET | changes)


def test_unknown_names_come_with_the_known_ones():
    with pytest.raises(
        UserError, match="'clip' is unknown.*attention, noise, .*itm, relative, dsd"
    ):
        score_spec.method_named("clip")
    paths = ", ".join(cross_attention_layers(config()))
    for wrong in ("mid", ["mid"]):
        with pytest.raises(UserError, match=f"layer 'mid' is unknown; expected 'all' or .*{paths}"):
            score_functions.chosen_layers(config(), wrong)
    with pytest.raises(UserError, match="no layer chosen"):
        score_functions.chosen_layers(config(), [])


def test_chosen_layers():
    every = cross_attention_layers(config())
    assert score_functions.chosen_layers(config(), "all") == every
    assert score_functions.chosen_layers(config(), every[1]) == every[1:2]
    assert score_functions.chosen_layers(config(), list(every[:2])) == every[:2]


def test_authors_choice_is_the_last_block_of_the_last_level_with_attention():
    deep = config(
        block_out_channels=[8, 16],
        down_block_types=["CrossAttnDownBlock2D"] * 2,
        up_block_types=["CrossAttnUpBlock2D"] * 2,
        transformer_layers_per_block=[1, 2],
    )
    assert score_functions.chosen_layers(deep) == (
        "down_blocks.1.attentions.0.transformer_blocks.1.attn2",
        "mid_block.attentions.0.transformer_blocks.1.attn2",
        "up_blocks.1.attentions.0.transformer_blocks.0.attn2",
        "up_blocks.1.attentions.1.transformer_blocks.0.attn2",
    )


def test_needs_no_more_than_a_method_reads():
    every = cross_attention_layers(config())
    layers = (every[2], every[0])
    wanted = {
        name: score_functions.required_outputs(config(), name, layers)
        for name in score_spec.METHODS
    }
    assert wanted["attention"] == ((every[0], every[2]), False, False, ())
    assert wanted["noise"] == ((), True, False, ())
    assert wanted["noise-l1"] == ((), True, False, ("l1",))
    assert wanted["itm"] == wanted["relative"] == ((), True, True, ())
    assert wanted["dsd"] == ((every[0], every[2]), True, True, ())
    learned = {"lse": {every[1]: 0}, "lse_uncond": {every[3]: 0}}
    assert score_functions.required_outputs(config(), "noise", layers, learned) == (
        (every[1], every[3]),
        True,
        True,
        (),
    )


def test_what_serves_several_methods():
    every = cross_attention_layers(config())
    needs = [
        score_functions.required_outputs(config(), name, every[2:0:-1])
        for name in ("attention", "noise-l1")
    ]
    assert score_functions.union(config(), needs) == (every[1:3], True, False, ("l1",))
    assert score_functions.union(config(), []) == ((), False, False, ())


def test_the_authors_layers_of_sdxl():
    """The authors take the last block of each side, and the last layer of each transformer."""
    config = UNetConfig.from_json(UNETS["stabilityai/stable-diffusion-xl-base-1.0"])
    assert score_functions.chosen_layers(config) == (
        "down_blocks.2.attentions.0.transformer_blocks.9.attn2",
        "down_blocks.2.attentions.1.transformer_blocks.9.attn2",
        "mid_block.attentions.0.transformer_blocks.9.attn2",
        "up_blocks.1.attentions.0.transformer_blocks.1.attn2",
        "up_blocks.1.attentions.1.transformer_blocks.1.attn2",
        "up_blocks.1.attentions.2.transformer_blocks.1.attn2",
    )
    assert len(score_functions.chosen_layers(config, "all")) == 70
