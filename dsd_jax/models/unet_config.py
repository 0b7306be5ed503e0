"""The UNet's config: `unet/config.json` read strictly, other models refused by name, written back.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, model_validator

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import (
    REMEDY,
    Channels,
    ConfigFile,
    Epsilon,
    LayersPerBlock,
    Names,
    PerBlock,
    Side,
    Width,
    Widths,
    check_divisors,
    refuse,
)

_WITH_ATTENTION = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
_WITHOUT = "DownBlock2D", "UpBlock2D"
_SIZES = 6  # numbers of an image's size that SDXL embeds beside its timestep (`unet.py`)
_MAX_SIDE = 512  # positions of a latent
_MAX_TRANSFORMERS = 512  # transformer blocks in all; SDXL has 70
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
# Models whose UNet takes more than noisy latents of 4 channels, by the number of its channels.
_MORE_CHANNELS = {
    "5": "a depth-to-image model",
    "7": "an upscaler",
    "8": "an InstructPix2Pix",
    "9": "an inpainting model",
}


class _UNetFile(ConfigFile):
    """The fields by diffusers' names; validators compare a field with those above it."""

    block_out_channels: Widths
    in_channels: Channels
    out_channels: Channels | None = None
    cross_attention_dim: Width
    sample_size: Side = Field(64, le=_MAX_SIDE)
    layers_per_block: LayersPerBlock = 2
    attention_head_dim: PerBlock = 8  # pyright: ignore[reportAssignmentType]  # one for each
    num_attention_heads: PerBlock | None = None
    transformer_layers_per_block: PerBlock = 1  # pyright: ignore[reportAssignmentType]
    down_block_types: Names = None
    up_block_types: Names = None
    use_linear_projection: bool | None = False
    upcast_attention: bool | None = False  # null in SDXL
    norm_num_groups: Width = 32
    norm_eps: Epsilon = 1e-5
    addition_embed_type: Literal["text_time"] | None = None
    addition_time_embed_dim: Width | None = None
    projection_class_embeddings_input_dim: Width | None = None

    @property
    def heads(self) -> tuple[int, ...]:
        """Return the number of heads of each block.

        `attention_head_dim` holds it in every published SD 1.x and 2.x config, where
        `num_attention_heads` is absent or null: a misnomer diffusers keeps for their sake.
        """
        return self.num_attention_heads or self.attention_head_dim

    @property
    def down_attention(self) -> tuple[bool, ...]:
        """Return for each down block whether it has cross-attention."""
        others = (True,) * (len(self.block_out_channels) - 1)
        return _attention(self.down_block_types, (*others, False))

    @property
    def up_attention(self) -> tuple[bool, ...]:
        """Return for each up block whether it has cross-attention."""
        others = (True,) * (len(self.block_out_channels) - 1)
        return _attention(self.up_block_types, (False, *others))

    @model_validator(mode="after")
    def _check_blocks(self) -> "_UNetFile":
        """Compare fields that must go together; raises `ValueError`."""
        widths = self.block_out_channels
        for field, index in (("down_block_types", 0), ("up_block_types", 1)):
            known = _WITH_ATTENTION[index], _WITHOUT[index]
            for name in getattr(self, field) or ():
                if name not in known:
                    raise ValueError(f"{field} holds '{name}', expected one of {known}")
        halvings = len(widths) - 1
        if self.sample_size % 2**halvings:
            raise ValueError(
                f"sample_size is {self.sample_size}, expected a multiple of {2**halvings}, because "
                f"all {len(widths)} blocks but the last halve it"
            )
        check_divisors(widths, (self.norm_num_groups,) * len(widths), "norm_num_groups")
        attention = [*self.down_attention[:-1], True]  # the mid block has the last one's width
        for width, heads, attends in zip(widths, self.heads, attention, strict=True):
            if attends:
                check_divisors((width,), (heads,), "attention_head_dim")
        layers = sum(self.transformer_layers_per_block) * (2 * self.layers_per_block + 1)
        if layers > _MAX_TRANSFORMERS:
            raise ValueError(
                f"transformer_layers_per_block and layers_per_block ask for {layers} transformer "
                f"blocks, expected at most {_MAX_TRANSFORMERS}"
            )
        return self

    @model_validator(mode="after")
    def _check_addition(self) -> "_UNetFile":
        """Check the two additional fields of SDXL; raises `ValueError`."""
        if self.addition_embed_type is None:
            return self
        time, total = self.addition_time_embed_dim, self.projection_class_embeddings_input_dim
        if time is None or total is None:
            raise ValueError(
                "addition_time_embed_dim and projection_class_embeddings_input_dim must both be "
                "given beside addition_embed_type 'text_time'"
            )
        if total <= _SIZES * time:
            raise ValueError(
                f"projection_class_embeddings_input_dim is {total}, which leaves no room for text "
                f"beside {_SIZES} numbers of addition_time_embed_dim {time} each; expected 2816 "
                "and 256, as in SDXL"
            )
        if time % 2:
            raise ValueError(f"addition_time_embed_dim is {time}, expected an even number")
        return self


def _attention(names: tuple[str, ...] | None, default: tuple[bool, ...]) -> tuple[bool, ...]:
    return default if names is None else tuple(name in _WITH_ATTENTION for name in names)


@dataclass(frozen=True)
class UNetConfig:
    """The fields of a UNet's `config.json` that decide its shape; tuples hold one per resolution.

    Attributes:
        addition_time_dim: width of the sinusoids of each number of SDXL's size; 0 elsewhere.
        addition_dim: width of the pooled text and all sinusoids together; 0 outside SDXL.
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
        """Return the width of the pooled text; 0 outside SDXL."""
        return self.addition_dim - _SIZES * self.addition_time_dim

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "UNetConfig":
        """Read a diffusers `unet/config.json`; raises `UserError` for another network."""
        _refuse_others(json)
        file = parse(_UNetFile, json, "unet/config.json", REMEDY)
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
            addition_time_dim=(file.addition_time_embed_dim or 0) if added else 0,
            addition_dim=(file.projection_class_embeddings_input_dim or 0) if added else 0,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `unet/config.json` that diffusers reads back as the same network."""
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
            **{name: _FIXED[name] for name in ("act_fn", "flip_sin_to_cos", "freq_shift")},
            **(added if self.addition_dim else {}),
        }


def _names(direction: int, attention: Sequence[bool]) -> list[str]:
    """Return the class name of each block: down (0) or up (1), with attention or without."""
    return [(_WITH_ATTENTION if attends else _WITHOUT)[direction] for attends in attention]


def _refuse_others(json: Mapping[str, Any]) -> None:
    """Raise `UserError` where the UNet is not of a Stable Diffusion 1.x, 2.x or XL."""
    if (kind := json.get("addition_embed_type")) not in (None, "text_time"):
        raise UserError(
            f"unet/config.json: addition_embed_type is {shorten(kind)}, as in Kandinsky and "
            "DeepFloyd IF; dsd_jax knows null (Stable Diffusion 1.x, 2.x) and 'text_time' (SDXL)."
        )
    if (width := json.get("time_cond_proj_dim")) is not None:
        raise UserError(
            f"unet/config.json: time_cond_proj_dim is {shorten(width)}, so this is a latent "
            "consistency model, whose UNet is told a guidance scale; use the model that it was "
            "distilled from."
        )
    channels = json.get("in_channels")
    if channels != (out := json.get("out_channels", channels)):
        kind = _MORE_CHANNELS.get(str(channels), "no text-to-image model")
        raise UserError(
            f"unet/config.json: in_channels {shorten(channels)} differs from out_channels "
            f"{shorten(out)}, so this is {kind}; dsd_jax needs a text-to-image UNet, where both "
            "are equal."
        )
    refuse("unet/config.json", json, _FIXED)
