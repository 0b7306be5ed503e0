"""The CLIP vision encoder: an image to one vector, by a transformer over its patches.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPVisionTransformer`); parameter names
are those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from pydantic import model_validator

from dsd_jax.io.validation import parse
from dsd_jax.models.clip_layers import Encoder
from dsd_jax.models.json_config import REMEDY, Layers, Side, TowerFile, Width, refuse


class _VisionFile(TowerFile):
    """The fields of a `vision_config`, with transformers' defaults, which published files omit."""

    hidden_size: Width = 768
    intermediate_size: Width = 3072
    num_hidden_layers: Layers = 12
    num_attention_heads: Width = 12
    image_size: Side = 224
    patch_size: Side = 32

    @model_validator(mode="after")
    def _check_patches(self) -> "_VisionFile":
        if self.image_size % self.patch_size:
            raise ValueError(
                f"patch_size is {self.patch_size}; expected a divisor of image_size, "
                f"{self.image_size}"
            )
        return self


@dataclass(frozen=True)
class VisionConfig:
    """The fields of a CLIP's `vision_config` that decide the shape of its vision tower."""

    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    activation: str
    norm_eps: float

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "VisionConfig":
        """Read a `vision_config`, with transformers' defaults for absent fields.

        Raises:
            UserError: it asks for an unsupported network.
        """
        where = "config.json: vision_config"
        file = parse(_VisionFile, json, where, REMEDY)
        refuse(where, json, {"num_channels": 3})
        return cls(
            hidden_size=file.hidden_size,
            intermediate_size=file.intermediate_size,
            layers=file.num_hidden_layers,
            heads=file.num_attention_heads,
            image_size=file.image_size,
            patch_size=file.patch_size,
            activation=file.hidden_act,
            norm_eps=file.layer_norm_eps,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `vision_config` that transformers reads back as the same tower."""
        return {
            "model_type": "clip_vision_model",
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_act": self.activation,
            "layer_norm_eps": self.norm_eps,
        }


class _PatchEmbedding(nn.Module):
    """A convolution whose stride is its size, computed as a matrix product."""

    features: int
    side: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "I H W 3"]) -> Float[Array, "I N D"]:
        side, (images, height, width, channels) = self.side, pixels.shape
        shape = (side, side, channels, self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        grid = pixels.reshape(images, height // side, side, width // side, side, channels)
        patches = grid.swapaxes(2, 3).reshape(images, -1, side * side * channels)
        return patches.astype(self.dtype) @ kernel.reshape(-1, self.features).astype(self.dtype)


class _Embeddings(nn.Module):
    config: VisionConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, pixels: Float[Array, "I H W 3"]) -> Float[Array, "I P D"]:
        c = self.config
        patches = _PatchEmbedding(c.hidden_size, c.patch_size, self.dtype, name="patch_embedding")(
            pixels
        )
        start = self.param("class_embedding", nn.initializers.normal(0.02), (c.hidden_size,))
        start = jnp.broadcast_to(start.astype(self.dtype), (len(pixels), 1, c.hidden_size))
        hidden = jnp.concatenate([start, patches], axis=1)
        count = hidden.shape[1]
        position = nn.Embed(count, c.hidden_size, dtype=self.dtype, name="position_embedding")
        return hidden + position(jnp.arange(count))


class CLIPVisionEncoder(nn.Module):
    """The vision encoder; its params are those below `vision_model` in a CLIP's tree."""

    config: VisionConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, pixels: Float[Array, "I H W 3"]) -> Float[Array, "I D"]:
        """Return the class token's state, after the last norm, of normalized pixels."""
        eps = self.config.norm_eps
        hidden = _Embeddings(self.config, self.dtype, name="embeddings")(pixels)
        # The name is misspelt in OpenAI's code, and so in all files.
        hidden = nn.LayerNorm(epsilon=eps, dtype=self.dtype, name="pre_layrnorm")(hidden)
        hidden, _ = Encoder(self.config, False, self.dtype, name="encoder")(hidden)
        return nn.LayerNorm(epsilon=eps, dtype=self.dtype, name="post_layernorm")(hidden[:, 0])
