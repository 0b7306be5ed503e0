"""What of a CLIP text encoder's `config.json` decides its shape, read strictly and written back.

Reference: transformers `models/clip/configuration_clip.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsd_jax.models.clip_layers import check_activation
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
        config = cls(
            vocab_size=fields["vocab_size"],
            hidden_size=fields["hidden_size"],
            intermediate_size=fields["intermediate_size"],
            layers=fields["num_hidden_layers"],
            heads=fields["num_attention_heads"],
            positions=json.get("max_position_embeddings", 77),
            activation=json.get("hidden_act", "quick_gelu"),
            norm_eps=json.get("layer_norm_eps", 1e-5),
            projection=json.get("projection_dim", 512) if projected else 0,
            end_token=json.get("eos_token_id", 49407) if projected else 2,
        )
        check_activation(file, config.activation)
        return config

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
