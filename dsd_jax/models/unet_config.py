"""What of a UNet's `config.json` decides its shape, read strictly and written back.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import REMEDY
from dsd_jax.models.unet_file import SIZES, WITH_ATTENTION, WITHOUT, UNetFile
from dsd_jax.models.unet_kinds import FIXED, refuse_others


@dataclass(frozen=True)
class UNetConfig:
    """What of a UNet's `config.json` decides its shape. One entry per resolution where plural.

    The last two are SDXL's: the width of each number's sinusoids, and of all that is added to the
    time embedding, pooled text and sinusoids; both 0 elsewhere.
    """

    sample_size: int
    in_channels: int
    out_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    cross_attention_dim: int
    heads: tuple[int, ...]
    depths: tuple[int, ...]
    down_attention: tuple[bool, ...]
    up_attention: tuple[bool, ...]
    linear_projection: bool
    upcast_attention: bool
    norm_num_groups: int
    norm_eps: float
    addition_time_dim: int = 0
    addition_dim: int = 0

    @property
    def pooled_dim(self) -> int:
        """Width A of the pooled text; 0 outside SDXL."""
        return self.addition_dim - SIZES * self.addition_time_dim

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "UNetConfig":
        """Read a diffusers `unet/config.json`; `UserError` names the option we don't support."""
        refuse_others(json)
        file = parse(UNetFile, json, "unet/config.json", REMEDY)
        added = file.addition_embed_type is not None
        return cls(
            sample_size=file.sample_size,
            in_channels=file.in_channels,
            out_channels=file.out_channels or file.in_channels,
            block_out_channels=file.block_out_channels,
            layers_per_block=file.layers_per_block,
            cross_attention_dim=file.cross_attention_dim,
            heads=file.heads,
            depths=file.transformer_layers_per_block,
            down_attention=file.down_attention,
            up_attention=file.up_attention,
            linear_projection=bool(file.use_linear_projection),
            upcast_attention=bool(file.upcast_attention),
            norm_num_groups=file.norm_num_groups,
            norm_eps=file.norm_eps,
            addition_time_dim=file.addition_time_embed_dim if added else 0,
            addition_dim=file.projection_class_embeddings_input_dim if added else 0,
        )

    def to_json(self) -> dict[str, Any]:
        """The `unet/config.json` that diffusers reads back as the same network."""
        added = {
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": self.addition_time_dim,
            "projection_class_embeddings_input_dim": self.addition_dim,
        }
        return {
            "_class_name": "UNet2DConditionModel",
            "_diffusers_version": "0.10.0",
            "sample_size": self.sample_size,
            "in_channels": self.in_channels,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.block_out_channels),
            "layers_per_block": self.layers_per_block,
            "cross_attention_dim": self.cross_attention_dim,
            "attention_head_dim": list(self.heads),
            "transformer_layers_per_block": list(self.depths),
            "down_block_types": _names(0, self.down_attention),
            "up_block_types": _names(1, self.up_attention),
            "use_linear_projection": self.linear_projection,
            "upcast_attention": self.upcast_attention,
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            **{name: FIXED[name] for name in ("act_fn", "flip_sin_to_cos", "freq_shift")},
            **(added if self.addition_dim else {}),
        }


def _names(direction: int, attention: Sequence[bool]) -> list[str]:
    """Return the class name of each block: down (0) or up (1), with attention or without."""
    return [WITH_ATTENTION[direction] if here else WITHOUT[direction] for here in attention]
