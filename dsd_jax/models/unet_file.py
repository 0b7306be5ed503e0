"""The fields of `unet/config.json` that decide a UNet's shape, checked.

Reference: diffusers `models/unets/unet_2d_condition.py`.
"""

from typing import Literal

from pydantic import Field, model_validator

from dsd_jax.models.json_config import (
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
)

WITH_ATTENTION = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
WITHOUT = "DownBlock2D", "UpBlock2D"
# What SDXL is told of a picture's size beside its timestep (`time_embedding.text_and_size`).
SIZES = 6
_MOST_SIDE = 512  # positions of a latent
_MOST_TRANSFORMERS = 512  # transformer blocks in all; SDXL has 70


class UNetFile(ConfigFile):
    """What diffusers calls its fields; validators compare a field with those above it."""

    block_out_channels: Widths
    in_channels: Channels
    out_channels: Channels | None = None
    cross_attention_dim: Width
    sample_size: Side = Field(64, le=_MOST_SIDE)
    layers_per_block: LayersPerBlock = 2
    attention_head_dim: PerBlock = 8
    num_attention_heads: PerBlock | None = None
    transformer_layers_per_block: PerBlock = 1
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
        """Number of heads of each block.

        `attention_head_dim` holds it in every published SD 1.x and 2.x config, where
        `num_attention_heads` is absent or null: a misnomer diffusers keeps for their sake.
        """
        return self.num_attention_heads or self.attention_head_dim

    @property
    def down_attention(self) -> tuple[bool, ...]:
        """Whether each down block has cross-attention."""
        rest = (True,) * (len(self.block_out_channels) - 1)
        return _attention(self.down_block_types, (*rest, False))

    @property
    def up_attention(self) -> tuple[bool, ...]:
        """Whether each up block has cross-attention."""
        rest = (True,) * (len(self.block_out_channels) - 1)
        return _attention(self.up_block_types, (False, *rest))

    @model_validator(mode="after")
    def _check_blocks(self) -> "UNetFile":
        """Compare fields that must go together; raises `ValueError`."""
        widths = self.block_out_channels
        for field, index in (("down_block_types", 0), ("up_block_types", 1)):
            known = WITH_ATTENTION[index], WITHOUT[index]
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
        here = [*self.down_attention[:-1], True]  # the mid block has the last one's width
        for width, heads, attends in zip(widths, self.heads, here, strict=True):
            if attends:
                check_divisors((width,), (heads,), "attention_head_dim")
        layers = sum(self.transformer_layers_per_block) * (2 * self.layers_per_block + 1)
        if layers > _MOST_TRANSFORMERS:
            raise ValueError(
                f"transformer_layers_per_block and layers_per_block ask for {layers} transformer "
                f"blocks, expected at most {_MOST_TRANSFORMERS}"
            )
        return self

    @model_validator(mode="after")
    def _check_addition(self) -> "UNetFile":
        """Check the two fields that SDXL has more; raises `ValueError`."""
        if self.addition_embed_type is None:
            return self
        time, whole = self.addition_time_embed_dim, self.projection_class_embeddings_input_dim
        if time is None or whole is None:
            raise ValueError(
                "addition_time_embed_dim and projection_class_embeddings_input_dim must both be "
                "given beside addition_embed_type 'text_time'"
            )
        if whole <= SIZES * time:
            raise ValueError(
                f"projection_class_embeddings_input_dim is {whole}, which leaves no room for text "
                f"beside {SIZES} numbers of addition_time_embed_dim {time} each; expected 2816 and "
                "256, as in SDXL"
            )
        if time % 2:
            raise ValueError(f"addition_time_embed_dim is {time}, expected an even number")
        return self


def _attention(names: tuple[str, ...] | None, default: tuple[bool, ...]) -> tuple[bool, ...]:
    return default if names is None else tuple(name in WITH_ATTENTION for name in names)
