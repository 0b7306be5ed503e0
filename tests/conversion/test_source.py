"""What a user names is recognised by what is there."""

import numpy as np
import pytest

from dsd_jax.conversion.source import Source, find_source
from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_files import write_prompts
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
