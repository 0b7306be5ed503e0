"""The prompts pytree: its initial values, and how it enters the UNet."""

import jax
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.matching.forward import cross_attention_layers
from dsd_jax.prompts import prompt_params
from tests.random_model import random_model

PATH = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def lora(model):
    return prompt_params.init_lora(model.unet, jax.random.key(0), rank=3)


def kernels(params):
    """Return {path: kernel} of the attention projections, and of all other layers."""
    attention, others = {}, {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [entry.key for entry in keys]
        projection = {"attn1", "attn2"} & set(names) and names[-1] == "kernel"
        (attention if projection else others)["/".join(names)] = leaf
    return attention, others


def test_lora_covers_every_projection(model, lora):
    shapes = prompt_params.attention_shapes(model.unet)
    assert set(lora) == set(shapes)
    assert len(shapes) == 2 * len(cross_attention_layers(model.unet))
    assert shapes[PATH] == {"to_q": (8, 8), "to_k": (12, 8), "to_v": (12, 8), "to_out": (8, 8)}
    for path, updates in lora.items():
        for name, (inputs, outputs) in shapes[path].items():
            assert updates[name]["down"].shape == (inputs, 3)
            assert updates[name]["up"].shape == (3, outputs)
            assert not updates[name]["up"].any()
    down = np.concatenate([np.ravel(u["down"]) for p in lora.values() for u in p.values()])
    np.testing.assert_allclose(down.std(), 1 / 3, rtol=0.1)
    assert len(np.unique(down)) == down.size


def test_lora_of_cross_attention_alone(model, lora):
    some = prompt_params.init_lora(model.unet, jax.random.key(0), rank=3, layers="attn2")
    assert set(some) == set(cross_attention_layers(model.unet))
    # The same numbers as when all layers have one: a key belongs to its layer.
    for path, updates in some.items():
        jax.tree.map(np.testing.assert_array_equal, updates, lora[path])


def test_layers_take_what_is_learned_of_them(model, lora):
    tokens = prompt_params.init_tokens(model.unet, jax.random.key(0), count=5)
    layers = prompt_params.by_layer({"lora": lora, "tokens": tokens, "weights": {}})
    assert set(layers) == set(lora) and prompt_params.by_layer({}) == {}
    for path, layer in layers.items():
        assert layer["to_q"] is lora[path]["to_q"]
        assert layer.get("tokens") is tokens.get(path)
    assert "tokens" not in lora[PATH]
    assert set(prompt_params.by_layer({"tokens": tokens})) == set(tokens)


def test_tokens_start_with_small_keys_and_no_values(model):
    tokens = prompt_params.init_tokens(model.unet, jax.random.key(0), count=5)
    assert set(tokens) == set(cross_attention_layers(model.unet))
    for path, token in tokens.items():
        features = prompt_params.attention_shapes(model.unet)[path]["to_k"][1]
        assert token["key"].shape == token["value"].shape == (5, features)
        assert not token["value"].any() and 0 < np.abs(token["key"]).max() < 0.5


def test_count(lora):
    assert prompt_params.count_params({"lora": {PATH: lora[PATH]}}) == 3 * (
        8 + 8 + 2 * (12 + 8) + 8 + 8
    )


def test_paths_are_those_of_diffusers():
    names = ("up_blocks_1", "attentions_0", "transformer_blocks_10", "attn1")
    assert (
        prompt_params.module_path(names) == "up_blocks.1.attentions.0.transformer_blocks.10.attn1"
    )


def test_names_of_the_authors(model, lora):
    tensors = {}
    for path, updates in lora.items():
        for name, update in updates.items():
            for side, array in update.items():
                tensors[f"{path}.processor.{name}_lora.{side}.weight"] = np.asarray(array).T
    jax.tree.map(np.testing.assert_array_equal, prompt_params.from_authors(tensors), {"lora": lora})


@pytest.mark.parametrize(
    "name",
    ["conv_in.weight", f"{PATH}.processor.to_q.weight", f"{PATH}.processor.to_x_lora.up.weight"],
)
def test_names_that_are_not_the_authors(name):
    with pytest.raises(UserError, match=f"'{name}' is not the name of a LoRA tensor"):
        prompt_params.from_authors({name: np.zeros((2, 2))})
