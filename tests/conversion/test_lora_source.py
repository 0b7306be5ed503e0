"""LoRA from prompts and adapters alike, checked against a model where one is named."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.conversion.adapter_files import write_diffusers
from dsd_jax.conversion.lora_source import count, ranks, read_lora, unet_config
from dsd_jax.conversion.source import Source
from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from dsd_jax.weights.component_configs import read_config
from dsd_jax.weights.model_folder import BUNDLED


@pytest.fixture(scope="module")
def config():
    return read_config(BUNDLED, UNET)


@pytest.fixture(scope="module")
def lora(config):
    return init_lora(config, jax.random.key(0), 2, "attn2")


@pytest.mark.parametrize("model", [None, "tiny"])
def test_prompts(config, lora, tmp_path, model):
    prompts = {"lora": lora, "tokens": init_tokens(config, jax.random.key(0))}
    write_prompts(tmp_path, prompts, {})
    found = read_lora(Source("prompts", tmp_path), model)
    jax.tree.map(np.testing.assert_array_equal, found, prompts)


@pytest.mark.parametrize("model", [None, "tiny"])
def test_adapters(lora, tmp_path, model):
    write_diffusers(tmp_path, lora)
    found = read_lora(Source("adapter", tmp_path / "pytorch_lora_weights.safetensors"), model)
    jax.tree.map(np.testing.assert_array_equal, found, {"lora": lora})
    assert count(found) == 8 * len(lora) and ranks(found) == "2"


def test_of_another_model(lora, tmp_path):
    write_prompts(tmp_path / "prompts", {"lora": lora}, {})
    with pytest.raises(UserError, match="trained for another model"):
        read_lora(Source("prompts", tmp_path / "prompts"), "CompVis/stable-diffusion-v1-4")
    write_diffusers(tmp_path / "adapter", lora)
    file = tmp_path / "adapter" / "pytorch_lora_weights.safetensors"
    with pytest.raises(UserError, match="does not fit CompVis/stable-diffusion-v1-4"):
        read_lora(Source("adapter", file), "CompVis/stable-diffusion-v1-4")


def test_an_adapter_that_is_not_whole(tmp_path):
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight"
    save_file({name: np.zeros((2, 3), np.float32)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="is not a whole adapter"):
        read_lora(Source("adapter", tmp_path / "x.safetensors"))


def test_prompts_without_lora(config, tmp_path):
    prompts = {
        "tokens": init_tokens(config, jax.random.key(0)),
        "weights": {"dsd": {"error": np.zeros(())}},
    }
    write_prompts(tmp_path, prompts, {})
    with pytest.raises(UserError, match="has no LoRA but tokens, weights, which has no form"):
        read_lora(Source("prompts", tmp_path))


def test_refused_prompts_say_so(tmp_path):
    write_prompts(tmp_path, {}, {"kept_step": 0})
    with pytest.raises(UserError, match="gained too little on held-out shots, so it was refused"):
        read_lora(Source("prompts", tmp_path))


def test_ranks(lora):
    path = next(iter(lora))
    mixed = {"lora": lora | {path: {"to_q": {"down": np.zeros((3, 5)), "up": np.zeros((5, 3))}}}}
    assert ranks(mixed) == "2 and 5"


def test_published_models_need_no_download():
    assert unet_config("CompVis/stable-diffusion-v1-4").cross_attention_dim == 768
