"""Every spelling in use, and what is none of the UNet's attention projections."""

import pytest

from dsd_jax.conversion.adapter_names import parse_name
from dsd_jax.prompts.lora_files import TensorName

PATH = "down_blocks.1.attentions.0.transformer_blocks.10.attn2"
MID = "mid_block.attentions.0.transformer_blocks.0.attn1"

# The original code's numbers, and what they are in diffusers.
LDM, BLOCK, DOWN = "lora_unet_", "transformer_blocks_3_attn1_to_q", ("to_q", "down")
ZERO, ONE, TWO = (f"attentions.{number}.transformer_blocks.3.attn1" for number in range(3))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (f"{PATH}.processor.to_q_lora.down.weight", (PATH, "to_q", "down")),
        (f"{MID}.processor.to_out_lora.up.weight", (MID, "to_out", "up")),
        (f"unet.{PATH}.processor.to_v_lora.up.weight", (PATH, "to_v", "up")),
        (f"unet.{PATH}.to_k.lora_A.weight", (PATH, "to_k", "down")),
        (f"unet.{MID}.to_out.0.lora_B.weight", (MID, "to_out", "up")),
        (f"{PATH}.to_q.lora_A.weight", (PATH, "to_q", "down")),
        (f"base_model.model.{MID}.to_out.0.lora_A.weight", (MID, "to_out", "down")),
        (f"unet.{PATH}.to_q.lora.down.weight", (PATH, "to_q", "down")),
        (f"unet.{PATH}.to_out.0.lora.up.weight", (PATH, "to_out", "up")),
        (f"lora_unet_{PATH.replace('.', '_')}_to_q.lora_down.weight", (PATH, "to_q", "down")),
        (f"lora_unet_{MID.replace('.', '_')}_to_out_0.lora_up.weight", (MID, "to_out", "up")),
        (f"lora_unet_{MID.replace('.', '_')}_to_out_0.alpha", (MID, "to_out", "alpha")),
        (f"unet.{PATH}.to_k.lora_A.default.weight", (PATH, "to_k", "down")),
        (f"base_model.model.unet.{PATH}.to_k.lora_B.default_0.weight", (PATH, "to_k", "up")),
        (f"unet.unet.{PATH}.to_k.lora_B.weight", (PATH, "to_k", "up")),
        (f"lora_unet.{PATH}.to_k.lora_up.weight", (PATH, "to_k", "up")),
        (f"diffusion_model.{PATH}.to_k.lora_B.weight", (PATH, "to_k", "up")),
        (f"unet.{PATH}.to_out.0.lora_linear_layer.down.weight", (PATH, "to_out", "down")),
        (f"lycoris_{PATH.replace('.', '_')}_to_q.alpha", (PATH, "to_q", "alpha")),
        (f"{LDM}input_blocks_4_1_{BLOCK}.lora_down.weight", (f"down_blocks.1.{ZERO}", *DOWN)),
        (f"{LDM}input_blocks_8_1_{BLOCK}.lora_down.weight", (f"down_blocks.2.{ONE}", *DOWN)),
        (f"{LDM}input_blocks_1_1_{BLOCK}.lora_down.weight", (f"down_blocks.0.{ZERO}", *DOWN)),
        (f"{LDM}middle_block_1_{BLOCK}.lora_down.weight", (f"mid_block.{ZERO}", *DOWN)),
        (f"{LDM}output_blocks_5_1_{BLOCK}.lora_down.weight", (f"up_blocks.1.{TWO}", *DOWN)),
        (f"{LDM}output_blocks_0_1_{BLOCK}.lora_down.weight", (f"up_blocks.0.{ZERO}", *DOWN)),
    ],
)
def test_spellings(name, expected):
    assert parse_name(name) == TensorName(*expected)


@pytest.mark.parametrize(
    "name",
    [
        "text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight",
        "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight",
        "lora_unet_input_blocks_4_0_transformer_blocks_0_attn1_to_q.lora_down.weight",
        "unet.down_blocks.0.attentions.0.transformer_blocks.0.ff.net.0.proj.lora_A.weight",
        "unet.down_blocks.0.resnets.0.conv1.lora_A.weight",
        f"unet.{PATH}.to_q.lora_B.bias",
        f"unet.{PATH}.to_q.lora_magnitude_vector",
        f"unet.{PATH}.to_q.weight",
        f"unet.{PATH}.to_x.lora_A.weight",
        f"vae.{PATH}.to_q.lora_A.weight",
        "",
    ],
)
def test_other_names(name):
    assert parse_name(name) is None


@pytest.mark.parametrize("projection", ["to_q", "to_out"])
@pytest.mark.parametrize("part", ["down", "up"])
def test_the_names_we_write_are_names_we_read(projection, part):
    name = TensorName(PATH, projection, part)
    assert parse_name(name.diffusers) == parse_name(name.authors) == name
    assert name.module == PATH + (".to_out.0" if projection == "to_out" else ".to_q")
