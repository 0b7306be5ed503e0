"""One name table, checked against PyTorch diffusers and transformers; a digest of all bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from dsd_jax.models.components import TEXT, TEXT_2, UNET, VAE, components
from dsd_jax.models.params import (
    canonical_name,
    canonical_name_in_file,
    flatten,
    flax_axes,
    torch_axes,
    unflatten,
    weights_digest,
)
from dsd_jax.models.published_networks import TEXTS, UNETS

SD15_UNET = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21_UNET = {
    "sample_size": 64,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}
FULL_VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "sample_size": 512,
}
SD15_TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
SD21_TEXT = dict(TEXTS[1024][0])
XL_UNET = dict(UNETS["stabilityai/stable-diffusion-xl-base-1.0"])
XL_TEXT_2 = dict(TEXTS[2048][1])


@pytest.mark.parametrize(
    ("component", "oracle", "config"),
    [
        (UNET, UNet2DConditionModel, SD15_UNET),
        (UNET, UNet2DConditionModel, SD21_UNET),
        (UNET, UNet2DConditionModel, XL_UNET),
        (VAE, AutoencoderKL, FULL_VAE),
        (TEXT, lambda **c: CLIPTextModel(CLIPTextConfig(**c)), SD15_TEXT),
        (TEXT, lambda **c: CLIPTextModel(CLIPTextConfig(**c)), SD21_TEXT),
        (TEXT_2, lambda **c: CLIPTextModelWithProjection(CLIPTextConfig(**c)), XL_TEXT_2),
    ],
    ids=["unet-sd15", "unet-sd21", "unet-xl", "vae", "text-sd15", "text-sd21", "text-2-xl"],
)
def test_full_size_models_have_the_names_and_shapes_of_pytorch(component, oracle, config):
    with torch.device("meta"):
        network = oracle(**config)
    prefix = "text_model." if component is TEXT else ""
    theirs = {prefix + name: tuple(t.shape) for name, t in network.state_dict().items()}
    assert all(canonical_name_in_file(name, False, component) == name for name in theirs)
    defaults = dict(getattr(network, "config", {})) if not component.tokenizer else {}
    tree = component.abstract_params(component.read_config(defaults | config))
    ours = {
        canonical_name(path): tuple(leaf.shape[axis] for axis in torch_axes(path, leaf.ndim))
        for path, leaf in flatten(tree).items()
    }
    assert ours == theirs


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("time_embedding/linear_1/kernel", "time_embedding.linear_1.weight"),
        ("up_blocks_3/resnets_10/norm1/scale", "up_blocks.3.resnets.10.norm1.weight"),
        ("a/ff/net_0/proj/bias", "a.ff.net.0.proj.bias"),
        ("a/attn1/to_out_0/kernel", "a.attn1.to_out.0.weight"),
        ("decoder/mid_block/attentions_0/proj_attn/bias",
         "decoder.mid_block.attentions.0.to_out.0.bias"),
        ("text_model/encoder/layers/7/layer_norm2/scale",
         "text_model.encoder.layers.7.layer_norm2.weight"),
        ("add_embedding/linear_2/bias", "add_embedding.linear_2.bias"),
        ("text_projection/kernel", "text_projection.weight"),
        ("text_model/embeddings/token_embedding/embedding",
         "text_model.embeddings.token_embedding.weight"),
    ],
)  # fmt: skip
def test_paths_of_the_tree(path, name):
    assert canonical_name(tuple(path.split("/"))) == name


@pytest.mark.parametrize("component", [TEXT, TEXT_2])
def test_text_encoders_have_one_prefix_whatever_their_file_says(component):
    name = "encoder.layers.0.mlp.fc1.weight"
    assert canonical_name_in_file(name, False, component) == f"text_model.{name}"
    assert canonical_name_in_file("text_projection.weight", False, component)[:5] == "text_"


def test_canonical_names_stay_as_they_are():
    for component in components(["text_encoder_2"]):
        for name in ("encoder.layers.0.mlp.fc1.weight", "time_embedding.linear_2.bias"):
            canonical = canonical_name_in_file(name, False, component)
            assert canonical_name_in_file(canonical, False, component) == canonical


def test_axes_are_inverse():
    for path, ndim in ((("a", "kernel"), 4), (("a", "kernel"), 2), (("a", "scale"), 1)):
        back = [torch_axes(path, ndim)[axis] for axis in flax_axes(path, ndim)]
        assert back == list(range(ndim))


def test_unflatten_is_the_inverse_of_flatten():
    tree = {"a": {"b": 1, "c": {"d": 2}}, "e": 3}
    assert unflatten(flatten(tree)) == tree


PARAMS = {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "a": np.ones(2)}


def test_the_digest_depends_on_values_alone():
    again = {"a": np.ones(2), "b": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}}
    assert weights_digest(PARAMS) == weights_digest(again)
    float32 = jax.tree.map(lambda x: np.asarray(x, np.float32), PARAMS)
    assert weights_digest(float32) == weights_digest(jax.tree.map(jnp.asarray, float32))
    assert len(weights_digest(PARAMS)) == 64


def test_the_digest_sees_every_change():
    kernel = PARAMS["b"]["kernel"]
    flipped = kernel.copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    others = [
        {**PARAMS, "b": {"kernel": flipped}},
        {**PARAMS, "b": {"kernel": kernel.reshape(3, 2)}},
        {**PARAMS, "b": {"kernel": kernel.astype(jnp.bfloat16)}},
        {**PARAMS, "b": {"kernel": kernel.view(np.int32)}},
        {**PARAMS, "b": {"scale": kernel}},
        {"a": PARAMS["a"]},
    ]
    assert len({weights_digest(params) for params in [PARAMS, *others]}) == 1 + len(others)
