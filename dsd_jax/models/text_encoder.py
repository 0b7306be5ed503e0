"""The CLIP text encoder: token ids to text states, and for SDXL to a pooled vector too.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPTextTransformer`) and
`configuration_clip.py`; parameter names are those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int
from pydantic import Field

from dsd_jax.io.validation import parse
from dsd_jax.models.clip_layers import Encoder
from dsd_jax.models.json_config import REMEDY, Positions, TowerFile, Vocabulary, Width


class _TextFile(TowerFile):
    """The fields of a text encoder's `config.json`."""

    vocab_size: Vocabulary
    max_position_embeddings: Positions = 77


class _ProjectedFile(_TextFile):
    """The fields of the `config.json` of a `CLIPTextModelWithProjection`."""

    projection_dim: Width = 512
    eos_token_id: int = Field(49407, ge=0, lt=2**20)


@dataclass(frozen=True)
class TextConfig:
    """The fields of a text encoder's `config.json` that decide its shape.

    Attributes:
        projection: width of the pooled vector; 0 for no projection (all but SDXL's second encoder).
        end_token: id of the token that ends a caption, whose state is pooled. 2 stands for the
            highest id of each caption, as in transformers: published configs have a 2 that ends
            no caption.
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
        cls,
        json: Mapping[str, Any],
        where: str = "text_encoder/config.json",
        projected: bool = False,
    ) -> "TextConfig":
        """Read the `config.json` that transformers writes.

        Args:
            json: the parsed file.
            where: the file's name in messages.
            projected: whether it is of a `CLIPTextModelWithProjection`.

        Raises:
            UserError: it asks for an unsupported network.
        """
        file_type = _ProjectedFile if projected else _TextFile
        file = parse(file_type, json.get("text_config", json), where, REMEDY)
        return cls(
            vocab_size=file.vocab_size,
            hidden_size=file.hidden_size,
            intermediate_size=file.intermediate_size,
            layers=file.num_hidden_layers,
            heads=file.num_attention_heads,
            positions=file.max_position_embeddings,
            activation=file.hidden_act,
            norm_eps=file.layer_norm_eps,
            projection=file.projection_dim if isinstance(file, _ProjectedFile) else 0,
            end_token=file.eos_token_id if isinstance(file, _ProjectedFile) else 2,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `config.json` that transformers reads back as the same network."""
        projected, last_id = self.projection > 0, self.vocab_size - 1
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
            "bos_token_id": last_id - 1,
            "eos_token_id": self.end_token if projected else last_id,
            "pad_token_id": last_id,
        }


class _Embeddings(nn.Module):
    config: TextConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, ids: Int[Array, "C L"]) -> Float[Array, "C L D"]:
        c = self.config
        token = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype, name="token_embedding")
        position = nn.Embed(c.positions, c.hidden_size, dtype=self.dtype, name="position_embedding")
        return token(ids) + position(jnp.arange(ids.shape[1]))


class _Tower(nn.Module):
    config: TextConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, ids: Int[Array, "C L"]
    ) -> tuple[Float[Array, "C L D"], Float[Array, "C L D"]]:
        """Return the states after the final layer norm, and the last layer's input (no norm)."""
        hidden = _Embeddings(self.config, self.dtype, name="embeddings")(ids)
        hidden, last_input = Encoder(self.config, True, self.dtype, name="encoder")(hidden)
        norm = nn.LayerNorm(epsilon=self.config.norm_eps, dtype=self.dtype, name="final_layer_norm")
        return norm(hidden), last_input


class CLIPTextEncoder(nn.Module):
    """The text encoder of Stable Diffusion 1.x and 2.x."""

    config: TextConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "C L"]) -> Float[Array, "C L D"]:
        """Return the text states of token ids, after the final layer norm, float32."""
        states, _ = _Tower(self.config, self.dtype, name="text_model")(ids)
        return states.astype(jnp.float32)


class SDXLTextEncoder(nn.Module):
    """A text encoder of SDXL, whose text states are the input of the last layer.

    Reference: diffusers `pipeline_stable_diffusion_xl.py` (`encode_prompt`).
    """

    config: TextConfig
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, ids: Int[Array, "C L"]) -> tuple[Float[Array, "C L D"], Float[Array, "C E"]]:
        """Return the text states and pooled vectors of token ids, float32.

        A pooled vector is the last layer's state at the caption's end, projected; E is 0 in the
        first encoder, which has no projection.
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
    """Return the parameter tree's shapes, uncomputed: nested dicts of ShapeDtypeStruct."""
    ids, network = jnp.zeros((1, config.positions), jnp.int32), SDXLTextEncoder(config)
    return jax.eval_shape(network.init, jax.random.key(0), ids)["params"]
