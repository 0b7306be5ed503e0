"""What of a CLIP text encoder's `config.json` decides its shape, read strictly and written back.

Reference: transformers `models/clip/configuration_clip.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import REMEDY, Positions, TowerFile, Vocabulary, Width


class TextFile(TowerFile):
    """The fields of a text encoder's `config.json`."""

    vocab_size: Vocabulary
    max_position_embeddings: Positions = 77


class _ProjectedFile(TextFile):
    """The fields of a `CLIPTextModelWithProjection`."""

    projection_dim: Width = 512
    eos_token_id: int = Field(49407, ge=0, lt=2**20)


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
        cls,
        json: Mapping[str, Any],
        where: str = "text_encoder/config.json",
        projected: bool = False,
    ) -> "TextConfig":
        """Read the `config.json` that transformers writes; `UserError` names what is unsupported.

        Args:
            json: what the file holds.
            where: what the file is called in messages.
            projected: whether it is of a `CLIPTextModelWithProjection`.
        """
        kind = _ProjectedFile if projected else TextFile
        file = parse(kind, json.get("text_config", json), where, REMEDY)
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
