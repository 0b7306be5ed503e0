"""Strictness: what is missing, extra or mis-shaped, all of it in one error, before any reading."""

import json

import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.tensor_files.stored_tensor import StoredTensor
from dsd_jax.weights.model_loading import load


def refusal(path) -> str:
    with pytest.raises(UserError) as error:
        load(path)
    return str(error.value)


def test_everything_wrong_in_all_components_is_in_one_error(folder):
    def unet(tensors):
        del tensors["conv_in.bias"]
        tensors["conv_out.bias"] = tensors["conv_out.bias"][:3]
        tensors["something.weight"] = np.zeros((2, 3), np.float16)

    def vae(tensors):
        tensors["quant_conv.weight"] = tensors["quant_conv.weight"][:, :, 0, 0]

    def text(tensors):
        del tensors["text_model.encoder.layers.1.mlp.fc2.weight"]

    for component, change in (("unet", unet), ("vae", vae), ("text_encoder", text)):
        folder.change(component, change)
    lines = refusal(folder.path).split("\n")
    assert lines[1:] == [
        "unet: 1 missing, 1 extra, 1 of another shape or type",
        "  - conv_in.bias (16,)",
        "  + something.weight (2, 3)",
        "  ~ conv_out.bias is (3,), expected (4,)",
        "vae: 1 of another shape or type",
        "  ~ quant_conv.weight is (8, 8), expected (8, 8, 1, 1)",
        "text_encoder: 1 missing",
        "  - text_model.encoder.layers.1.mlp.fc2.weight (32, 64)",
    ]


def test_flax_files_are_described_in_flax_names_and_shapes(folder, model):
    params = {**model.params["vae"], "quant_conv": {"kernel": np.zeros((1, 1, 8, 7))}}
    folder.to_flax("vae", params)
    assert refusal(folder.path).split("\n")[1:] == [
        "vae: 1 missing, 1 of another shape or type",
        "  - quant_conv/bias (8,)",
        "  ~ quant_conv/kernel is (1, 1, 8, 7), expected (1, 1, 8, 8)",
    ]


def test_long_lists_are_cut_and_counted(folder):
    tensors = folder.tensors("unet")
    count = len(tensors)
    folder.write("unet", {f"x{i}": np.zeros(1, np.float16) for i in range(20)})
    text = refusal(folder.path)
    assert f"unet: {count} missing, 20 extra" in text
    assert f"  - ... and {count - 8} more" in text
    assert "  + ... and 12 more" in text
    assert text.count("\n") == 1 + 2 * 9


def test_the_same_tensor_under_two_names(folder):
    name = "encoder.mid_block.attentions.0.query.bias"
    folder.change("vae", lambda t: t.update({name.replace("query", "to_q"): t[name]}))
    assert "attentions.0.to_q.bias" in refusal(folder.path)


def test_tensors_of_whole_numbers(folder):
    folder.change("vae", lambda t: t.update({"quant_conv.bias": np.zeros(8, np.int8)}))
    assert "~ quant_conv.bias is int8, expected one of float16" in refusal(folder.path)


def test_linear_weights_do_not_fit_a_convolution(folder):
    name = "mid_block.attentions.0.proj_in.weight"
    folder.change("unet", lambda t: t.update({name: t[name][:, :, 0, 0]}))
    assert f"~ {name} is (32, 32), expected (32, 32, 1, 1)" in refusal(folder.path)


@pytest.mark.parametrize(
    "name", ["position_ids_x", "xsafety_checker.a", "emma.weight", "vision_model.x", "logit_scale"]
)
def test_nothing_else_is_ignored(folder, name):
    folder.change("text_encoder", lambda t: t.update({name: np.ones(3, np.float32)}))
    assert f"  + {name} (3,)" in refusal(folder.path)


def test_config_of_another_size(folder):
    file = folder.path / "unet" / "config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"block_out_channels": [16, 32, 32, 48]}))
    text = refusal(folder.path)
    assert "unet: " in text and "of another shape" in text and "vae" not in text.split("\n", 1)[1]


def test_names_are_compared_before_any_data_is_read(folder, monkeypatch):
    def read(self):
        raise AssertionError("data was read")

    monkeypatch.setattr(StoredTensor, "read", read)
    folder.change("text_encoder", lambda t: t.pop("text_model.final_layer_norm.bias"))
    assert "- text_model.final_layer_norm.bias" in refusal(folder.path)
    folder.change(
        "text_encoder",
        lambda t: t.update({"text_model.final_layer_norm.bias": np.zeros(32, np.float16)}),
    )
    with pytest.raises(AssertionError, match="data was read"):
        load(folder.path)


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module."])
def test_prefixes_of_training_frameworks_are_named(folder, prefix):
    folder.change("unet", lambda t: [t.update({prefix + n: t.pop(n)}) for n in list(t)])
    assert f"take '{prefix}' off the names of all tensors and save" in refusal(folder.path)
