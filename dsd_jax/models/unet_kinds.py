"""The other models whose denoiser is a `UNet2DConditionModel` too, refused by name.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from collections.abc import Mapping
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.models.json_config import refuse

# Options that change the network; only these values are Stable Diffusion 1.x, 2.x and XL.
FIXED = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
}
# Whose UNets read more than noisy latents, by their number of channels where they are 4.
_MORE_CHANNELS = {
    "5": "a depth-to-image model",
    "7": "an upscaler",
    "8": "an InstructPix2Pix",
    "9": "an inpainting model",
}


def refuse_others(json: Mapping[str, Any]) -> None:
    """`UserError` where `unet/config.json` is of no Stable Diffusion 1.x, 2.x or XL."""
    if (kind := json.get("addition_embed_type")) not in (None, "text_time"):
        raise UserError(
            f"unet/config.json: addition_embed_type is {shorten(kind)}, as in Kandinsky and "
            "DeepFloyd IF; dsd_jax knows null (Stable Diffusion 1.x, 2.x) and 'text_time' (SDXL)."
        )
    if (width := json.get("time_cond_proj_dim")) is not None:
        raise UserError(
            f"unet/config.json: time_cond_proj_dim is {shorten(width)}, so this is a latent "
            "consistency model, whose UNet is told a guidance scale; use the model that it was "
            "distilled from."
        )
    channels = json.get("in_channels")
    if channels != (out := json.get("out_channels", channels)):
        kind = _MORE_CHANNELS.get(str(channels), "no text-to-image model")
        raise UserError(
            f"unet/config.json: in_channels {shorten(channels)} differs from out_channels "
            f"{shorten(out)}, so this is {kind}; dsd_jax needs a text-to-image UNet, where both "
            "are equal."
        )
    refuse("unet/config.json", json, FIXED)
