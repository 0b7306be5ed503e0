"""The CLIP text tower: token ids to text states, and for SDXL to what is pooled of them.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPTextTransformer`); parameter names
are those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.models.clip_layers import Layer, check_activation
from dsd_jax.models.config import read_fields


@dataclass(frozen=True)
class TextConfig:
    """What of a text encoder's `config.json` decides its shape.

    The last two are for SDXL's second encoder: the width A that the state at a caption's end is
    projected to, 0 for no such projection, and the end's token id. There 2 stands for the highest
    id of each caption, as in transformers: published configs have a 2 that is no caption's end.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    positions: int
    activation: str
    norm_eps: float
    projection: int = 0
    end_token: int = 2

    @classmethod
    def from_json(
        cls, json: Mapping[str, Any], folder: str = "text_encoder", projected: bool = False
    ) -> "TextConfig":
        """Read the `config.json` that transformers writes; `UserError` names what is unsupported.

        Args:
            json: what the file holds.
            folder: where it lies, for messages.
            projected: whether it is of a `CLIPTextModelWithProjection`.
        """
        file = f"{folder}/config.json"
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
        activation = json.get("hidden_act", "quick_gelu")
        check_activation(file, activation)
        return cls(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            intermediate_size=fields["intermediate_size"],
            layers=fields["num_hidden_layers"],
            heads=fields["num_attention_heads"],
            positions=json.get("max_position_embeddings", 77),
            activation=activation,
            norm_eps=json.get("layer_norm_eps", 1e-5),
            projection=json.get("projection_dim", 512) if projected else 0,
            end_token=json.get("eos_token_id", 49407) if projected else 2,
        )

    def to_json(self) -> dict[str, Any]:
        """The `config.json` that transformers reads back as the same network."""
        projected, last = self.projection > 0, self.vocab_size - 1
        return {
            "architectures": ["CLIPTextModelWithProjection" if projected else "CLIPTextModel"],
            "model_type": "clip_text_model",
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            "hidden_act": self.activation,
            "layer_norm_eps": self.norm_eps,
            "projection_dim": self.projection or self.hidden_size,
            "bos_token_id": last - 1,
            "eos_token_id": self.end_token if projected else last,
            "pad_token_id": last,
        }


class _Layers(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What leaves the last layer, and what enters it."""
        before = hidden
        for i in range(self.config.layers):
            before, hidden = hidden, Layer(self.config, True, self.dtype, name=str(i))(hidden)
        return hidden, before


class _Encoder(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
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
    def __call__(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """States after the final layer norm; states before the last layer, which have no norm."""
        hidden = _Embeddings(self.config, self.dtype, name="embeddings")(ids)
        hidden, before = _Encoder(self.config, self.dtype, name="encoder")(hidden)
        norm = nn.LayerNorm(epsilon=self.config.norm_eps, dtype=self.dtype, name="final_layer_norm")
        return norm(hidden), before


class CLIPText(nn.Module):
    """The text encoder of Stable Diffusion 1.x and 2.x."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Token ids (C, L) int32 -> text states (C, L, K) float32, after the final layer norm."""
        states, _ = _Tower(self.config, self.dtype, name="text_model")(ids)
        return states.astype(jnp.float32)


class XLText(nn.Module):
    """Either text encoder of SDXL, which reads what enters the last layer.

    Reference: diffusers `pipeline_stable_diffusion_xl.py` (`encode_prompt`).
    """

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Token ids (C, L) int32 -> states (C, L, K) and pooled (C, A), both float32.

        Pooled is the state after all layers at the caption's end, projected; A is 0 in the first
        encoder, which has no projection.
        """
        c = self.config
        last, states = _Tower(c, self.dtype, name="text_model")(ids)
        if not c.projection:
            return states.astype(jnp.float32), jnp.zeros((len(ids), 0))
        end = jnp.argmax(ids if c.end_token == 2 else ids == c.end_token, axis=1)
        pooled = nn.Dense(c.projection, use_bias=False, dtype=self.dtype, name="text_projection")(
            last[jnp.arange(len(ids)), end]
        )
        return states.astype(jnp.float32), pooled.astype(jnp.float32)


def abstract_params(config: TextConfig) -> dict:
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    ids, network = jnp.zeros((1, config.positions), jnp.int32), XLText(config)
    return jax.eval_shape(network.init, jax.random.key(0), ids)["params"]
