"""The UNet's configs, names, and what rows of one latent share; numbers are in tests/parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.errors import UserError
from dsd_jax.models.unet import UNet2DCondition, abstract_params, sinusoidal_embedding
from dsd_jax.models.unet_config import UNetConfig
from tests.random_model import UNET, UNET_XL, random_model


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_config():
    config = UNetConfig.from_json(UNET)
    assert config.heads == (2, 2) and config.depths == (1, 1) and config.out_channels == 4
    assert config.down_attention == (True, False) and config.up_attention == (False, True)
    assert not config.linear_projection and not config.upcast_attention
    for changes in ({}, {"attention_head_dim": [1, 4]}, {"use_linear_projection": True}):
        config = UNetConfig.from_json(UNET | changes)
        assert UNetConfig.from_json(config.to_json()) == config


def test_heads_as_diffusers_reads_them():
    """`attention_head_dim` is their number, unless the file says `num_attention_heads` too."""
    assert UNetConfig.from_json(UNET | {"attention_head_dim": [1, 4]}).heads == (1, 4)
    both = UNET | {"attention_head_dim": 64, "num_attention_heads": 4}
    assert UNetConfig.from_json(both).heads == (4, 4)
    assert UNetConfig.from_json(UNET | {"num_attention_heads": None}).heads == (2, 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"addition_embed_type": "text_image"}, "is 'text_image', as in Kandinsky and DeepFloyd"),
        ({"addition_embed_type": "text_time"}, "addition_time_embed_dim and .* must both be given"),
        ({"time_cond_proj_dim": 256}, "time_cond_proj_dim is 256, so this is a latent consistency"),
        ({"reverse_transformer_layers_per_block": [1]}, "reverse_transformer_layers_per_block is"),
        (
            {"transformer_layers_per_block": [1, [2]]},
            r"transformer_layers_per_block.1 is \[2\], expected a whole",
        ),
        ({"class_embed_type": "timestep"}, "class_embed_type is 'timestep', but only None"),
        ({"resnet_time_scale_shift": "scale_shift"}, "resnet_time_scale_shift is 'scale_shift'"),
        ({"down_block_types": ["AttnDownBlock2D"] * 2}, "holds 'AttnDownBlock2D', expected one of"),
        ({"up_block_types": ["UpBlock2D"]}, "up_block_types has 1 entries but block_out_channels"),
        ({"attention_head_dim": [1, 2, 3]}, "attention_head_dim has 3 entries but .* has 2"),
        ({"in_channels": 9, "out_channels": 4}, "in_channels 9 differs .* an inpainting model;"),
        ({"in_channels": 5, "out_channels": 4}, "in_channels 5 differs .* a depth-to-image model;"),
        ({"in_channels": 8, "out_channels": 4}, "in_channels 8 differs .* an InstructPix2Pix;"),
        ({"in_channels": 3, "out_channels": 6}, "in_channels 3 differs .* no text-to-image model;"),
    ],
)
def test_other_networks_are_refused_by_name(change, message):
    with pytest.raises(UserError, match=message):
        UNetConfig.from_json(UNET | change)


def test_missing_fields_are_named():
    with pytest.raises(UserError, match="unet/config.json: block_out_channels is missing; in_ch"):
        UNetConfig.from_json({})


def test_names_are_those_of_diffusers_flax():
    params = abstract_params(UNetConfig.from_json(UNET))
    assert set(params) == {
        "conv_in", "time_embedding", "down_blocks_0", "down_blocks_1", "mid_block",
        "up_blocks_0", "up_blocks_1", "conv_norm_out", "conv_out",
    }  # fmt: skip
    block = params["down_blocks_0"]["attentions_0"]["transformer_blocks_0"]
    assert set(block) == {"norm1", "attn1", "norm2", "attn2", "norm3", "ff"}
    assert set(block["attn2"]) == {"to_q", "to_k", "to_v", "to_out_0"}
    assert set(block["ff"]) == {"net_0", "net_2"}
    kernel = params["down_blocks_0"]["attentions_0"]["proj_in"]["kernel"]
    assert kernel.shape == (1, 1, 8, 8)
    linear = abstract_params(UNetConfig.from_json(UNET | {"use_linear_projection": True}))
    assert linear["down_blocks_0"]["attentions_0"]["proj_in"]["kernel"].shape == (8, 8)


def test_sinusoids_have_cosines_first():
    embedding = sinusoidal_embedding(jnp.array([0, 3]), 8)
    np.testing.assert_array_equal(embedding[0], [1, 1, 1, 1, 0, 0, 0, 0])
    frequencies = 10_000.0 ** (-np.arange(4) / 4)
    np.testing.assert_allclose(embedding[1, :4], np.cos(3 * frequencies), rtol=1e-5)
    np.testing.assert_allclose(embedding[1, 4:], np.sin(3 * frequencies), rtol=1e-5)


def test_sdxl():
    config = UNetConfig.from_json(UNET_XL | {"upcast_attention": None})
    assert config.pooled_dim == 10 and not config.upcast_attention
    assert UNetConfig.from_json(config.to_json()) == config
    assert abstract_params(config)["add_embedding"]["linear_1"]["kernel"].shape == (34, 32)
    with pytest.raises(UserError, match="is 24, which leaves no room for text beside 6 numbers"):
        UNetConfig.from_json(UNET_XL | {"projection_class_embeddings_input_dim": 24})


def test_sdxl_takes_captions_whole():
    """Text states alone are half of what it reads of a caption."""
    network, config = UNet2DCondition, UNetConfig.from_json(UNET_XL)
    inputs = jnp.zeros((1, 4, 4, 4)), jnp.zeros((1,), int), jnp.zeros((1, 1, 77, 20))
    with pytest.raises(UserError, match="pooled part is 0 wide, expected 10 .* as strings"):
        network(config).init(jax.random.key(0), *inputs)


def test_rows_of_one_latent_share_it_but_for_pooled_text():
    """Two sets of three captions, two latents each, as twelve rows and as four."""
    model = random_model(xl=True)
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(4, *model.latent_shape)).astype(np.float32)
    texts = EncodedCaptions(rng.normal(size=(2, 3, 77, 20)), rng.normal(size=(2, 3, 10)))
    texts = texts.map(lambda x: x.astype(np.float32))
    steps, network = np.array([5, 700, 30, 400]), UNet2DCondition(model.unet)
    params = model.params["unet"]
    apply = jax.jit(lambda *inputs: network.apply({"params": params}, *inputs, image_size=8))
    shared = apply(latents, steps, texts.states, {}, texts.pooled)
    rows = texts.map(lambda x: x[[0, 0, 1, 1]].reshape(12, 1, *x.shape[2:]))
    alone = apply(np.repeat(latents, 3, axis=0), np.repeat(steps, 3), rows.states, {}, rows.pooled)
    for one, other in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_rows_of_one_latent_share_it(model):
    """Two latents with three captions each, as six rows and as two."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(2, *model.latent_shape)).astype(np.float32)
    states = rng.normal(size=(2, 77, 12)).astype(np.float32)
    steps, captions = np.array([5, 700]), np.array([[0, 1, 1], [1, 0, 1]])
    apply = jax.jit(
        lambda *rest: UNet2DCondition(model.unet).apply({"params": model.params["unet"]}, *rest)
    )
    shared = apply(latents, steps, states[captions])
    rows = states[captions.reshape(-1, 1)]
    alone = apply(np.repeat(latents, 3, axis=0), np.repeat(steps, 3), rows)
    assert shared[0].shape == (6, *model.latent_shape) and shared[0].dtype == jnp.float32
    for one, other in zip(*map(jax.tree.leaves, (shared, alone)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-5)


def test_16_bits_are_close_and_scores_are_float32(model):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(1, *model.latent_shape)).astype(np.float32)
    states = rng.normal(size=(1, 77, 12)).astype(np.float32)

    def apply(dtype):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), model.params["unet"])
        network = UNet2DCondition(model.unet, dtype=dtype)
        return jax.jit(network.apply)({"params": params}, latents, np.array([5]), states[:, None])

    (prediction, scores), (low, low_scores) = apply(jnp.float32), apply(jnp.bfloat16)
    assert low.dtype == jnp.float32
    assert {score.dtype for score in low_scores.values()} == {jnp.dtype(jnp.float32)}
    assert 0 < np.abs(low - prediction).max() < 0.1 * np.abs(prediction).max()
    for path, score in scores.items():
        np.testing.assert_allclose(low_scores[path], score, rtol=0.05, atol=0.1)
