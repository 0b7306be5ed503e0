"""The components of a model, and the files that hold each in the Hugging Face layout."""

import functools
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from dsd_jax.models import text_encoder, unet, vae
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig


@dataclass(frozen=True)
class Component:
    """A network of a model: its folder, its files' names, and the params that they must fill.

    Attributes:
        folder: name of its subfolder.
        key: its key in `Model.params`.
        classes: class names that its `config.json` may state.
        torch_stem: start of the names of its safetensors files.
        flax_stem: start of the names of its msgpack files.
        read_config: function from the parsed `config.json` to a config; raises `UserError`.
        abstract_params: function from the config to nested dicts of `jax.ShapeDtypeStruct`.
        model: the model family it belongs to, in messages.
        tokenizer: for a text encoder, its tokenizer's subfolder and field of `Model`.
    """

    folder: str
    key: str
    classes: tuple[str, ...]
    torch_stem: str
    flax_stem: str
    read_config: Callable[[Mapping[str, Any]], Any]
    abstract_params: Callable[[Any], dict]
    model: str = "a Stable Diffusion 1.x, 2.x or XL model"
    tokenizer: str = ""


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
    read_config=TextConfig.from_json,
    abstract_params=functools.cache(text_encoder.abstract_params),
    tokenizer="tokenizer",
)
TEXT_2 = Component(
    folder="text_encoder_2",
    key="text_2",
    classes=("CLIPTextModelWithProjection",),
    torch_stem="model",
    flax_stem="flax_model",
    read_config=functools.partial(
        TextConfig.from_json, where="text_encoder_2/config.json", projected=True
    ),
    abstract_params=functools.cache(text_encoder.abstract_params),
    tokenizer="tokenizer_2",
)
_ALL = (UNET, VAE, TEXT, TEXT_2)
COMPONENTS = _ALL[:3]  # of Stable Diffusion 1.x and 2.x


def components(names: Collection[str]) -> tuple[Component, ...]:
    """Return the components of a model: all four of SDXL, or the first three.

    Args:
        names: its subfolders, or the keys of its params.
    """
    return _ALL if TEXT_2.folder in names or TEXT_2.key in names else COMPONENTS
