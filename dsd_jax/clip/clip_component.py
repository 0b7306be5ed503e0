"""How a folder in the layout of transformers' `CLIPModel` holds a CLIP: all at its root."""

import functools

from dsd_jax.models import clip
from dsd_jax.models.components import Component

COMPONENT = Component(
    folder=".",
    key="clip",
    classes=("CLIPModel",),
    torch_stem="model",
    flax_stem="flax_model",
    read_config=clip.CLIPConfig.from_json,
    abstract_params=functools.cache(clip.abstract_params),
    model="a CLIP, such as openai/clip-vit-base-patch32",
)
PREPROCESSOR = "preprocessor_config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
LAYOUT = "a folder with config.json, model.safetensors and a tokenizer, as of a CLIPModel"
