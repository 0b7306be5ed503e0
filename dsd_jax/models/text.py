"""The CLIP text tower: token ids to text states.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPTextTransformer`); parameter names
are those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.errors import UserError
from dsd_jax.models.clip_layers import ACTIVATIONS, Layer
from dsd_jax.models.config import read_fields


@dataclass(frozen=True)
class TextConfig:
    """What of a text encoder's `config.json` decides its shape."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    positions: int
    activation: str
    norm_eps: float

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "TextConfig":
        """Read a transformers `text_encoder/config.json`; `UserError` names what is unsupported."""
        file = "text_encoder/config.json"
        json = json.get("text_config", json)
        fields = read_fields(
            file,
            json,
            "vocab_size",
            "hidden_size",
            "intermediate_size",
            "num_hidden_layers",
            "num_attention_heads",
        )
        config = cls(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            intermediate_size=fields["intermediate_size"],
            layers=fields["num_hidden_layers"],
            heads=fields["num_attention_heads"],
            positions=json.get("max_position_embeddings", 77),
            activation=json.get("hidden_act", "quick_gelu"),
            norm_eps=json.get("layer_norm_eps", 1e-5),
        )
        if config.activation not in ACTIVATIONS:
            raise UserError(
                f"{file}: hidden_act is '{config.activation}', expected one of "
                f"{', '.join(ACTIVATIONS)}."
            )
        return config

    def to_json(self) -> dict[str, Any]:
        """The `text_encoder/config.json` that transformers reads back as the same network."""
        return {
            "architectures": ["CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            "hidden_act": self.activation,
            "layer_norm_eps": self.norm_eps,
            "projection_dim": self.hidden_size,
            "bos_token_id": self.vocab_size - 2,
            "eos_token_id": self.vocab_size - 1,
            "pad_token_id": self.vocab_size - 1,
        }


class _Layers(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        for i in range(self.config.layers):
            hidden = Layer(self.config, True, self.dtype, name=str(i))(hidden)
        return hidden


class _Encoder(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        return _Layers(self.config, self.dtype, name="layers")(hidden)


class _Embeddings(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        c = self.config
        token = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype, name="token_embedding")
        position = nn.Embed(c.positions, c.hidden_size, dtype=self.dtype, name="position_embedding")
        return token(ids) + position(jnp.arange(ids.shape[1]))


class _Tower(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        hidden = _Embeddings(self.config, self.dtype, name="embeddings")(ids)
        hidden = _Encoder(self.config, self.dtype, name="encoder")(hidden)
        return nn.LayerNorm(
            epsilon=self.config.norm_eps, dtype=self.dtype, name="final_layer_norm"
        )(hidden)


class CLIPText(nn.Module):
    """The text encoder of Stable Diffusion 1.x and 2.x."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Token ids (C, L) int32 -> text states (C, L, K) float32, after the final layer norm."""
        return _Tower(self.config, self.dtype, name="text_model")(ids).astype(jnp.float32)


def abstract_params(config: TextConfig) -> dict:
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    ids = jnp.zeros((1, config.positions), jnp.int32)
    return jax.eval_shape(CLIPText(config).init, jax.random.key(0), ids)["params"]
