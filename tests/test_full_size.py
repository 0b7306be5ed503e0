"""The script for full-size models works; here on models as deep and far narrower."""

import json
from math import prod

import pytest

from dsd_jax.models.components import TEXT, TEXT_2, UNET, VAE
from tests import full_size

NARROW = {
    UNET: {
        "block_out_channels": [8, 16],
        "cross_attention_dim": 16,
        "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
        "layers_per_block": 1,
        "norm_num_groups": 4,
        "sample_size": 4,
        "attention_head_dim": 2,
    },
    VAE: {
        "block_out_channels": [8, 8],
        "down_block_types": ["DownEncoderBlock2D"] * 2,
        "up_block_types": ["UpDecoderBlock2D"] * 2,
        "norm_num_groups": 4,
        "layers_per_block": 1,
    },
    TEXT: {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
    },
}


NARROW[TEXT_2] = NARROW[TEXT] | {"projection_dim": 10}
NARROW_XL = NARROW[UNET] | {
    "cross_attention_dim": 32,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "transformer_layers_per_block": [1, 2],
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 34,
}


@pytest.mark.parametrize("name", ["sd15", "sd21-v", "sdxl"])
def test_script(name, tmp_path, monkeypatch, capsys):
    golden, configs = full_size.MODELS[name]
    changes = NARROW | ({UNET: NARROW_XL} if name == "sdxl" else {})
    narrow = {component: configs[component] | changes[component] for component in configs}
    monkeypatch.setitem(full_size.MODELS, name, (golden, narrow))
    full_size.write_model(name, tmp_path)
    assert full_size.load_and_score(tmp_path) >= 0
    said = capsys.readouterr().out
    assert "times the parameters" in said and "with compilation" in said
    scheduler = json.loads((tmp_path / "scheduler" / "scheduler_config.json").read_text())
    assert scheduler["prediction_type"] == ("v_prediction" if "-v" in name else "epsilon")


def test_full_size_configs_are_those_of_stable_diffusion():
    """Parameter counts of the published models, in millions."""
    counts = {}
    for name, (_, configs) in full_size.MODELS.items():
        for component, config in configs.items():
            shapes = full_size.torch_shapes(component, config)
            total = sum(prod(shape) for shape in shapes.values())
            counts[name, component.folder] = round(total / 1e6, 1)
    assert counts["sd15", "unet"] == 859.5 and counts["sd21", "unet"] == 865.9
    assert counts["sd15", "vae"] == counts["sd21", "vae"] == 83.7
    assert counts["sd15", "text_encoder"] == 123.1 and counts["sd21", "text_encoder"] == 340.4
    assert counts["sdxl", "unet"] == 2567.5 and counts["sdxl", "text_encoder_2"] == 694.7
