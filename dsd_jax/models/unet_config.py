"""What of a UNet's `config.json` decides its shape, read strictly and written back.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.models.config import per_block, read_fields, refuse

_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
# Options that change the network; only these values are Stable Diffusion 1.x, 2.x and XL.
_FIXED = {
    "act_fn": "silu",
    "attention_type": "default",
    "center_input_sample": False,
    "class_embed_type": None,
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "cross_attention_norm": None,
    "downsample_padding": 1,
    "dropout": 0.0,
    "dual_cross_attention": False,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "flip_sin_to_cos": True,
    "freq_shift": 0,
    "mid_block_only_cross_attention": None,
    "mid_block_scale_factor": 1,
    "mid_block_type": "UNetMidBlock2DCrossAttn",
    "num_class_embeds": None,
    "only_cross_attention": False,
    "resnet_out_scale_factor": 1.0,
    "resnet_skip_time_act": False,
    "resnet_time_scale_shift": "default",
    "reverse_transformer_layers_per_block": None,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
}
# What SDXL is told of a picture's size beside its timestep (`UNet2DCondition._added`).
_SIZES = 6
# Whose UNets read more than noisy latents, by their number of channels where they are 4.
_MORE_CHANNELS = {
    5: "a depth-to-image model",
    7: "an upscaler",
    8: "an InstructPix2Pix",
    9: "an inpainting model",
}


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
        _refuse_relatives(json)
        refuse("unet/config.json", json, _FIXED)
        fields = read_fields(
            "unet/config.json", json, "block_out_channels", "cross_attention_dim", "in_channels"
        )
        blocks = len(fields["block_out_channels"])
        down = _attention("down_block_types", json, (True,) * (blocks - 1) + (False,), _DOWN)
        up = _attention("up_block_types", json, (False,) + (True,) * (blocks - 1), _UP)
        # `attention_head_dim` holds the number of heads in every published SD 1.x and 2.x config,
        # and `num_attention_heads` is absent or null: a misnomer diffusers keeps for their sake.
        heads = json.get("num_attention_heads") or json.get("attention_head_dim", 8)
        config = cls(
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
        if config.in_channels != config.out_channels:
            kind = _MORE_CHANNELS.get(config.in_channels, "no text-to-image model")
            raise UserError(
                f"unet/config.json: in_channels {config.in_channels} differs from out_channels "
                f"{config.out_channels}, so this is {kind}; dsd_jax needs a text-to-image UNet, "
                "where both are equal."
            )
        return config

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
            **{name: _FIXED[name] for name in ("act_fn", "flip_sin_to_cos", "freq_shift")},
            **(added if self.addition_dim else {}),
        }


def _refuse_relatives(json: Mapping[str, Any]) -> None:
    """Name those other models whose denoiser is of this class too."""
    if (kind := json.get("addition_embed_type")) not in (None, "text_time"):
        raise UserError(
            f"unet/config.json: addition_embed_type is {kind!r}, as in Kandinsky and DeepFloyd IF; "
            "dsd_jax knows none (Stable Diffusion 1.x and 2.x) and 'text_time' (SDXL)."
        )
    if (width := json.get("time_cond_proj_dim")) is not None:
        raise UserError(
            f"unet/config.json: time_cond_proj_dim is {width}, so this is a latent consistency "
            "model, whose UNet is told a guidance scale; use the model that it was distilled from."
        )


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
