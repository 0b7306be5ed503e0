"""The three networks of a model, and how a folder in the Hugging Face layout holds each."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dsd_jax.models import text, unet, vae
from dsd_jax.models.unet_config import UNetConfig


@dataclass(frozen=True)
class Component:
    """One network: its folder, its files' names, and the tree of parameters they must fill.

    Attributes:
        folder: name of the subfolder.
        key: name in `Model.params`.
        classes: the class names that its `config.json` may state.
        torch_stem: start of the names of its safetensors files.
        flax_stem: start of the names of its msgpack files.
        read_config: from the parsed `config.json` to a config; raises `UserError`.
        abstract_params: from the config to nested dicts of `jax.ShapeDtypeStruct`.
    """

    folder: str
    key: str
    classes: tuple[str, ...]
    torch_stem: str
    flax_stem: str
    read_config: Callable[[Mapping[str, Any]], Any]
    abstract_params: Callable[[Any], dict]


# Tracing a UNet for its shapes takes two seconds, so each config is traced once.
UNET = Component(
    folder="unet",
    key="unet",
    classes=("UNet2DConditionModel",),
    torch_stem="diffusion_pytorch_model",
    flax_stem="diffusion_flax_model",
    read_config=UNetConfig.from_json,
    abstract_params=functools.cache(unet.abstract_params),
)
VAE = Component(
    folder="vae",
    key="vae",
    classes=("AutoencoderKL",),
    torch_stem="diffusion_pytorch_model",
    flax_stem="diffusion_flax_model",
    read_config=vae.VAEConfig.from_json,
    abstract_params=functools.cache(vae.abstract_params),
)
TEXT = Component(
    folder="text_encoder",
    key="text",
    classes=("CLIPTextModel",),
    torch_stem="model",
    flax_stem="flax_model",
    read_config=text.TextConfig.from_json,
    abstract_params=functools.cache(text.abstract_params),
)
COMPONENTS = (UNET, VAE, TEXT)
