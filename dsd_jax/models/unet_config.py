"""What of a UNet's `config.json` decides its shape, read strictly and written back.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.models.config import per_block, read_fields
from dsd_jax.models.unet_kinds import FIXED, refuse_others

_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
# What SDXL is told of a picture's size beside its timestep (`time_embedding.text_and_size`).
_SIZES = 6


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
        return self.addition_dim - _SIZES * self.addition_time_dim

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "UNetConfig":
        """Read a diffusers `unet/config.json`; `UserError` names the option we don't support."""
        refuse_others(json)
        fields = read_fields(
            "unet/config.json", json, "block_out_channels", "cross_attention_dim", "in_channels"
        )
        blocks = len(fields["block_out_channels"])
        down = _attention("down_block_types", json, (True,) * (blocks - 1) + (False,), _DOWN)
        up = _attention("up_block_types", json, (False,) + (True,) * (blocks - 1), _UP)
        # `attention_head_dim` holds the number of heads in every published SD 1.x and 2.x config,
        # and `num_attention_heads` is absent or null: a misnomer diffusers keeps for their sake.
        heads = json.get("num_attention_heads") or json.get("attention_head_dim", 8)
        return cls(
            sample_size=json.get("sample_size", 64),
            in_channels=fields["in_channels"],
            out_channels=json.get("out_channels", fields["in_channels"]),
            block_out_channels=tuple(fields["block_out_channels"]),
            layers_per_block=json.get("layers_per_block", 2),
            cross_attention_dim=fields["cross_attention_dim"],
            heads=per_block("attention_head_dim", heads, blocks),
            depths=per_block(
                "transformer_layers_per_block", json.get("transformer_layers_per_block", 1), blocks
            ),
            down_attention=down,
            up_attention=up,
            linear_projection=json.get("use_linear_projection", False),
            upcast_attention=bool(json.get("upcast_attention")),  # null in SDXL
            norm_num_groups=json.get("norm_num_groups", 32),
            norm_eps=json.get("norm_eps", 1e-5),
            **_addition(json),
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
            "down_block_types": [_DOWN[0] if a else _DOWN[1] for a in self.down_attention],
            "up_block_types": [_UP[0] if a else _UP[1] for a in self.up_attention],
            "use_linear_projection": self.linear_projection,
            "upcast_attention": self.upcast_attention,
            "norm_num_groups": self.norm_num_groups,
            "norm_eps": self.norm_eps,
            **{name: FIXED[name] for name in ("act_fn", "flip_sin_to_cos", "freq_shift")},
            **(added if self.addition_dim else {}),
        }


def _addition(json: Mapping[str, Any]) -> dict[str, int]:
    """The two fields of SDXL; nothing for other families."""
    if json.get("addition_embed_type") is None:
        return {}
    names = "addition_time_embed_dim", "projection_class_embeddings_input_dim"
    time, whole = read_fields("unet/config.json", json, *names).values()
    if whole <= _SIZES * time:
        raise UserError(
            f"unet/config.json: {names[1]} is {whole}, which leaves no room for text beside "
            f"{_SIZES} numbers of {names[0]} {time} each; expected 2816 and 256, as in SDXL."
        )
    return {"addition_time_dim": time, "addition_dim": whole}


def _attention(
    field: str, json: Mapping[str, Any], default: tuple[bool, ...], types: tuple[str, str]
) -> tuple[bool, ...]:
    """Which blocks have cross-attention, from their class names."""
    names = json.get(field)
    if names is None:
        return default
    for name in names:
        if name not in types:
            raise UserError(f"unet/config.json: {field} holds '{name}', expected one of {types}.")
    if len(names) != len(default):
        raise UserError(
            f"unet/config.json: {field} has {len(names)} entries but block_out_channels has "
            f"{len(default)}; they must be equally many."
        )
    return tuple(name == types[0] for name in names)
