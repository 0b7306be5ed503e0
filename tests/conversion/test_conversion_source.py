"""A source is recognised by what is there; LoRA is read from prompts and adapters alike."""

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from dsd_jax.conversion.conversion_source import (
    Source,
    describe_lora,
    find_source,
    read_lora,
    unet_config,
)
from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.prompts.lora_files import write_diffusers
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.prompts.prompt_params import init_lora, init_tokens
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import BUNDLED


def test_models():
    assert find_source("tiny") == find_source(BUNDLED) == Source("model", BUNDLED)


def test_prompts(tmp_path):
    write_prompts(tmp_path, {"lora": {"a": np.zeros(1)}}, {})
    assert find_source(str(tmp_path)) == Source("prompts", tmp_path)
    with pytest.raises(UserError, match=r"is a part of prompts; give their folder"):
        find_source(tmp_path / "prompts.safetensors")


def test_adapters(tmp_path):
    """A file of any name; in a folder one of a known name, safetensors before pickles."""
    for name in (
        "pytorch_model.bin",
        "adapter_model.safetensors",
        "pytorch_lora_weights.safetensors",
    ):
        (tmp_path / name).write_bytes(b"")
        assert find_source(tmp_path) == Source("adapter", tmp_path / name)
        assert find_source(tmp_path / name) == Source("adapter", tmp_path / name)


def test_a_folder_with_one_file_of_another_name(tmp_path):
    (tmp_path / "my.safetensors").write_bytes(b"")
    assert find_source(tmp_path) == Source("adapter", tmp_path / "my.safetensors")
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="holds my.safetensors, other.safetensors; expected"):
        find_source(tmp_path)


@pytest.mark.parametrize("where", ["/no/such/place", "adapter.bin", "", "nothing"])
def test_nothing(where):
    with pytest.raises(UserError, match="There is nothing at|There is no model at"):
        find_source(where)


def test_others(tmp_path):
    with pytest.raises(UserError, match="holds nothing; expected a prompts folder"):
        find_source(tmp_path)
    (tmp_path / "flax_model.msgpack").write_bytes(b"")
    with pytest.raises(UserError, match="is a part of a model; give the model's folder"):
        find_source(tmp_path / "flax_model.msgpack")
    (tmp_path / "unet").mkdir()
    with pytest.raises(UserError, match="is not a Stable Diffusion model in the Hugging Face"):
        find_source(tmp_path)


@pytest.fixture(scope="module")
def config():
    return read_config(BUNDLED, UNET)


@pytest.fixture(scope="module")
def lora(config):
    return init_lora(config, jax.random.key(0), 2, "attn2")


@pytest.mark.parametrize("model", [None, "tiny"])
def test_lora_of_prompts(config, lora, tmp_path, model):
    prompts = {"lora": lora, "tokens": init_tokens(config, jax.random.key(0))}
    write_prompts(tmp_path, prompts, {})
    found = read_lora(Source("prompts", tmp_path), model)
    jax.tree.map(np.testing.assert_array_equal, found, prompts)


@pytest.mark.parametrize("model", [None, "tiny"])
def test_lora_of_adapters(lora, tmp_path, model):
    write_diffusers(tmp_path, lora)
    found = read_lora(Source("adapter", tmp_path / "pytorch_lora_weights.safetensors"), model)
    jax.tree.map(np.testing.assert_array_equal, found, {"lora": lora})
    assert describe_lora(found["lora"]) == f"{8 * len(lora)} tensors of rank 2"


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
    mixed = lora | {path: {"to_q": {"down": np.zeros((3, 5)), "up": np.zeros((5, 3))}}}
    assert describe_lora(mixed).endswith("tensors of rank 2 and 5")


def test_published_models_need_no_download():
    assert unet_config("CompVis/stable-diffusion-v1-4").cross_attention_dim == 768
