"""CLIP: a text and a vision tower whose vectors are close where caption and image match.

Reference: Radford et al. 2021; transformers `models/clip/modeling_clip.py` (`CLIPModel`). The
parameter tree is that of its Flax port, `FlaxCLIPModel`.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import REMEDY, ConfigFile, Width
from dsd_jax.models.text_encoder import SDXLTextEncoder, TextConfig
from dsd_jax.models.vision_encoder import CLIPVisionEncoder, VisionConfig


class _CLIPFile(ConfigFile):
    """The fields of the `config.json` of a `CLIPModel`; old files state a tower twice."""

    projection_dim: Width = 512
    text_config: Mapping[str, Any] | None = None
    text_config_dict: Mapping[str, Any] | None = None
    vision_config: Mapping[str, Any] | None = None
    vision_config_dict: Mapping[str, Any] | None = None

    def tower(self, name: str) -> Mapping[str, Any]:
        """Return the fields of a tower; `text_config_dict` takes precedence, as in transformers."""
        old = getattr(self, f"{name}_dict")
        return (getattr(self, name) or {}) if old is None else old


# The defaults of transformers' `CLIPTextConfig`, which published files omit.
_TEXT_DEFAULTS = {
    "vocab_size": 49408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
}
_INITIAL_LOGIT_SCALE = math.log(1 / 0.07)


@dataclass(frozen=True)
class CLIPConfig:
    """The shape of a CLIP; `text.projection` is the width E of both towers' vectors."""

    text: TextConfig
    vision: VisionConfig

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "CLIPConfig":
        """Read a transformers `config.json` of a `CLIPModel`.

        Old files state a tower twice: `text_config_dict`, with defaults for absent fields, takes
        precedence over `text_config`, as in transformers. The projection's width is the one beside
        the towers, not the towers' own.

        Raises:
            UserError: it asks for an unsupported network.
        """
        file = parse(_CLIPFile, json, "config.json", REMEDY)
        text = {**_TEXT_DEFAULTS, **file.tower("text_config")}
        text["projection_dim"] = file.projection_dim
        return cls(
            TextConfig.from_json(text, where="config.json: text_config", projected=True),
            VisionConfig.from_json(file.tower("vision_config")),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `config.json` that transformers reads back as the same network."""
        width = {"projection_dim": self.text.projection}
        text = {name: x for name, x in self.text.to_json().items() if name != "architectures"}
        return {
            "architectures": ["CLIPModel"],
            "model_type": "clip",
            **width,
            "logit_scale_init_value": _INITIAL_LOGIT_SCALE,
            "text_config": text,
            "vision_config": {**self.vision.to_json(), **width},
        }


class CLIP(nn.Module):
    """The two towers and their projections to E dims; vectors are not normalized."""

    config: CLIPConfig
    dtype: DTypeLike = jnp.float32

    def setup(self):
        """Build both towers; the text tower's params have no level of their own."""
        c = self.config
        self.text = SDXLTextEncoder(c.text, self.dtype)
        nn.share_scope(self, self.text)  # holds `text_model` and `text_projection`
        self.vision_model = CLIPVisionEncoder(c.vision, self.dtype)
        self.visual_projection = nn.Dense(c.text.projection, use_bias=False, dtype=self.dtype)
        self.logit_scale = self.param(
            "logit_scale", lambda _: jnp.asarray(_INITIAL_LOGIT_SCALE, jnp.float32)
        )

    def encode_texts(self, ids: Int[Array, "C L"]) -> Float[Array, "C E"]:
        """Return the projected end token's state of token ids, float32."""
        return self.text(ids)[1]

    def encode_images(self, pixels: Float[Array, "I H W 3"]) -> Float[Array, "I E"]:
        """Return the projected class token's state of normalized pixels, float32."""
        return self.visual_projection(self.vision_model(pixels)).astype(jnp.float32)

    def __call__(
        self, ids: Int[Array, "C L"], pixels: Float[Array, "I H W 3"]
    ) -> tuple[Float[Array, "C E"], Float[Array, "I E"]]:
        """Return the captions' vectors and the images'."""
        return self.encode_texts(ids), self.encode_images(pixels)


def unit(x: Float[Array, "*B E"]) -> Float[Array, "*B E"]:
    """Scale vectors to length 1."""
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def abstract_params(config: CLIPConfig) -> dict:
    """Return the parameter tree's shapes, uncomputed: nested dicts of ShapeDtypeStruct."""
    ids = jax.ShapeDtypeStruct((1, config.text.positions), jnp.int32)
    side = config.vision.image_size
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
    return jax.eval_shape(CLIP(config).init, jax.random.key(0), ids, pixels)["params"]
