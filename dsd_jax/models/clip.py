"""CLIP: two towers whose vectors lie close together where caption and picture match.

Reference: Radford et al. 2021; transformers `models/clip/modeling_clip.py` (`CLIPModel`). The tree
of parameters is that of its Flax port, `FlaxCLIPModel`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import REMEDY, ConfigFile, Width
from dsd_jax.models.text_config import TextConfig
from dsd_jax.models.text_encoder import XLText
from dsd_jax.models.vision_encoder import CLIPVision, VisionConfig


class _CLIPFile(ConfigFile):
    """A `config.json` of a `CLIPModel`; old files state a tower twice."""

    projection_dim: Width = 512
    text_config: Mapping[str, Any] | None = None
    text_config_dict: Mapping[str, Any] | None = None
    vision_config: Mapping[str, Any] | None = None
    vision_config_dict: Mapping[str, Any] | None = None

    def tower(self, name: str) -> Mapping[str, Any]:
        """Return the fields of a tower; `..._dict` goes before, as in transformers."""
        twice = getattr(self, f"{name}_dict")
        return (getattr(self, name) or {}) if twice is None else twice


# transformers' `CLIPTextConfig`: published files leave out what is equal to these.
_TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
}
_FIRST_LOGIT_SCALE = math.log(1 / 0.07)


@dataclass(frozen=True)
class CLIPConfig:
    """What of a CLIP's `config.json` decides its shape; `text.projection` is E of both towers."""

    text: TextConfig
    vision: VisionConfig

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "CLIPConfig":
        """Read a transformers `config.json` of a `CLIPModel`; `UserError` names what we can't do.

        Old files state a tower twice: `text_config_dict`, with defaults for all that it leaves
        out, goes before `text_config`, as in transformers. The width of a tower's projection is
        the one beside the towers, whatever they say themselves.
        """
        file = parse(_CLIPFile, json, "config.json", REMEDY)
        text = {**_TEXT_DEFAULTS, **file.tower("text_config")}
        text["projection_dim"] = file.projection_dim
        return cls(
            TextConfig.from_json(text, where="config.json: text_config", projected=True),
            VisionConfig.from_json(file.tower("vision_config")),
        )

    def to_json(self) -> dict[str, Any]:
        """The `config.json` that transformers reads back as the same network."""
        width = {"projection_dim": self.text.projection}
        text = {name: x for name, x in self.text.to_json().items() if name != "architectures"}
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            **width,
            "logit_scale_init_value": _FIRST_LOGIT_SCALE,
            "text_config": text,
            "vision_config": {**self.vision.to_json(), **width},
        }


class CLIP(nn.Module):
    """Both towers and their projections into one space of E dims; nothing is normalised here."""

    config: CLIPConfig
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        """Both towers' parameters, the text tower's without a level of its own."""
        c = self.config
        self.text = XLText(c.text, self.dtype)
        nn.share_scope(self, self.text)  # it has `text_model` and `text_projection`
        self.vision_model = CLIPVision(c.vision, self.dtype)
        self.visual_projection = nn.Dense(c.text.projection, use_bias=False, dtype=self.dtype)
        self.logit_scale = self.param(
            "logit_scale", lambda _: jnp.asarray(_FIRST_LOGIT_SCALE, jnp.float32)
        )

    def encode_texts(self, ids: jax.Array) -> jax.Array:
        """Token ids (C, L) int32 -> (C, E) float32: the end token's state, projected."""
        return self.text(ids)[1]

    def encode_images(self, pixels: jax.Array) -> jax.Array:
        """Normalised pixels (I, S, S, 3) -> (I, E) float32: the class token's state, projected."""
        return self.visual_projection(self.vision_model(pixels)).astype(jnp.float32)

    def __call__(self, ids: jax.Array, pixels: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Both at once: (C, E) of the captions, (I, E) of the pictures."""
        return self.encode_texts(ids), self.encode_images(pixels)


def unit(x: jax.Array) -> jax.Array:
    """Vectors (..., E) float32 of length 1."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def abstract_params(config: CLIPConfig) -> dict:
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    ids = jax.ShapeDtypeStruct((1, config.text.positions), jnp.int32)
    side = config.vision.image_size
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), ids, pixels)["params"]
