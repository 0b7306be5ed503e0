"""The denoising UNet of Stable Diffusion 1.x and 2.x: a prediction, and cross-attention scores.

Reference: diffusers `models/unets/unet_2d_condition.py`, `unet_2d_blocks.py`; parameter names are
those of its Flax port. SDXL differs by its config only where `UNetConfig.from_json` refuses it.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.errors import UserError
from dsd_jax.models.attention import Reduce, Tokens, Transformer, mean_lse, repeat_rows
from dsd_jax.models.config import per_block, read_fields, refuse
from dsd_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv3x3

_DOWN = ("CrossAttnDownBlock2D", "DownBlock2D")
_UP = ("CrossAttnUpBlock2D", "UpBlock2D")
# Options that change the network; only these values are Stable Diffusion 1.x and 2.x.
_FIXED = {
    "act_fn": "silu",
    "addition_embed_type": None,
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
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "time_embedding_act_fn": None,
    "timestep_post_act": None,
}


@dataclass(frozen=True)
class UNetConfig:
    """What of a UNet's `config.json` decides its shape. One entry per resolution where plural."""

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

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "UNetConfig":
        """Read a diffusers `unet/config.json`; `UserError` names the option we don't support."""
        if json.get("addition_embed_type") == "text_time":
            raise UserError(
                "unet/config.json: addition_embed_type 'text_time' is SDXL, which is not supported "
                "yet; use a Stable Diffusion 1.x or 2.x model."
            )
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
            upcast_attention=json.get("upcast_attention", False),
            norm_num_groups=json.get("norm_num_groups", 32),
            norm_eps=json.get("norm_eps", 1e-5),
        )
        if config.in_channels != config.out_channels:
            raise UserError(
                f"unet/config.json: in_channels {config.in_channels} differs from out_channels "
                f"{config.out_channels}, as in inpainting and depth models; dsd_jax needs a "
                "text-to-image UNet, where both are equal."
            )
        return config

    def to_json(self) -> dict[str, Any]:
        """The `unet/config.json` that diffusers reads back as the same network."""
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
        }


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


def sinusoidal_embedding(timesteps: jax.Array, features: int) -> jax.Array:
    """(B,) -> (B, features), cosines first (`flip_sin_to_cos`), float32."""
    half = features // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class TimeEmbedding(nn.Module):
    """The MLP behind the sinusoids."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x)
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(jax.nn.silu(x))


class _Block(nn.Module):
    """What every block of the UNet needs to build its layers."""

    config: UNetConfig
    level: int
    reduce: Reduce
    dtype: jnp.dtype

    def resnet(self, i: int) -> ResnetBlock:
        c = self.config
        features = c.block_out_channels[self.level]
        return ResnetBlock(features, c.norm_num_groups, c.norm_eps, self.dtype, name=f"resnets_{i}")

    def transformer(self, i: int) -> Transformer:
        c = self.config
        return Transformer(
            heads=c.heads[self.level],
            depth=c.depths[self.level],
            groups=c.norm_num_groups,
            linear=c.linear_projection,
            upcast=c.upcast_attention,
            reduce=self.reduce,
            dtype=self.dtype,
            name=f"attentions_{i}",
        )

    def attend(self, i: int, hidden: jax.Array, text: "Text") -> tuple[jax.Array, dict]:
        """Run transformer `i`; scores are keyed by the path below this block."""
        name = f"attentions.{i}."
        out, scores = self.transformer(i)(
            hidden, text.states, text.captions, below(name, text.tokens)
        )
        return out, {name + path: score for path, score in scores.items()}


@dataclass(frozen=True)
class Text:
    """What the UNet is conditioned on: `states` (C, L, K), `captions` (B,) into it, `tokens`."""

    states: jax.Array
    captions: jax.Array
    tokens: Mapping[str, Tokens]


def below(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    """The entries whose path starts with `prefix`, without it."""
    return {path[len(prefix) :]: leaf for path, leaf in tree.items() if path.startswith(prefix)}


class DownBlock(_Block):
    """Resnets, transformers where this resolution has them, a downsampler unless it is the last."""

    @nn.compact
    def __call__(self, hidden, time, text: Text):
        c, skips, scores = self.config, [], {}
        for i in range(c.layers_per_block):
            hidden = self.resnet(i)(hidden, time)
            if c.down_attention[self.level]:
                hidden, new = self.attend(i, hidden, text)
                scores |= new
            skips.append(hidden)
        if self.level < len(c.block_out_channels) - 1:
            padding = ((1, 1), (1, 1))
            hidden = Downsample(padding, self.dtype, name="downsamplers_0")(hidden)
            skips.append(hidden)
        return hidden, skips, scores


class MidBlock(_Block):
    """Resnet, transformer, resnet at the coarsest resolution."""

    @nn.compact
    def __call__(self, hidden, time, text: Text):
        hidden = self.resnet(0)(hidden, time)
        hidden, scores = self.attend(0, hidden, text)
        return self.resnet(1)(hidden, time), scores


class UpBlock(_Block):
    """The mirror of a down block, with its skip connections concatenated."""

    @nn.compact
    def __call__(self, hidden, skips: list, time, text: Text):
        c, scores = self.config, {}
        for i in range(c.layers_per_block + 1):
            skip = repeat_rows(skips.pop(), hidden.shape[0])
            hidden = self.resnet(i)(jnp.concatenate([hidden, skip], axis=-1), time)
            if c.up_attention[len(c.block_out_channels) - 1 - self.level]:
                hidden, new = self.attend(i, hidden, text)
                scores |= new
        if self.level > 0:
            hidden = Upsample(self.dtype, name="upsamplers_0")(hidden)
        return hidden, scores


class UNet2DCondition(nn.Module):
    """The denoiser. What the caller does not use of its results, XLA does not compute."""

    config: UNetConfig
    reduce: Reduce = mean_lse
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        states: jax.Array,
        captions: jax.Array | None = None,
        tokens: Mapping[str, Tokens] | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Predict the noise (or v) of every row, and reduce every cross-attention layer's logits.

        Args:
            latents: (R, H, W, in_channels) noisy latents.
            timesteps: (R,) in [0, 1000).
            states: (C, L, K) text states.
            captions: (B,) int32, the caption of each row of the result; B a multiple of R, the
                rows of one latent side by side. What precedes the first cross-attention is
                computed once per latent. Default: `states` row by row.
            tokens: learned tokens per layer path, appended to the captions' keys and values.

        Returns:
            (B, H, W, out_channels) float32, and {layer path: reduce(logits (B, N, Q, L))}.
        """
        c = self.config
        rows = jnp.arange(states.shape[0]) if captions is None else captions
        text = Text(states.astype(self.dtype), rows, tokens or {})
        time = sinusoidal_embedding(timesteps, c.block_out_channels[0]).astype(self.dtype)
        time = TimeEmbedding(4 * c.block_out_channels[0], self.dtype, name="time_embedding")(time)
        hidden = conv3x3(c.block_out_channels[0], self.dtype, "conv_in")(latents.astype(self.dtype))
        hidden, scores = self._levels(hidden, time, text)
        hidden = nn.GroupNorm(
            c.norm_num_groups, epsilon=c.norm_eps, dtype=self.dtype, name="conv_norm_out"
        )(hidden)
        out = conv3x3(c.out_channels, self.dtype, "conv_out")(jax.nn.silu(hidden))
        return out.astype(jnp.float32), scores

    def _levels(self, hidden, time, text: Text):
        """Down, middle and up; a block's scores get the block's path in front."""
        c, skips, scores = self.config, [hidden], {}
        levels = len(c.block_out_channels)

        def collect(prefix: str, new: dict) -> None:
            scores.update({prefix + path: score for path, score in new.items()})

        def text_of(prefix: str) -> Text:
            return Text(text.states, text.captions, below(prefix, text.tokens))

        for i in range(levels):
            block = DownBlock(c, i, self.reduce, self.dtype, name=f"down_blocks_{i}")
            hidden, new_skips, new = block(hidden, time, text_of(f"down_blocks.{i}."))
            skips += new_skips
            collect(f"down_blocks.{i}.", new)
        block = MidBlock(c, levels - 1, self.reduce, self.dtype, name="mid_block")
        hidden, new = block(hidden, time, text_of("mid_block."))
        collect("mid_block.", new)
        for i in range(levels):
            block = UpBlock(c, levels - 1 - i, self.reduce, self.dtype, name=f"up_blocks_{i}")
            hidden, new = block(hidden, skips, time, text_of(f"up_blocks.{i}."))
            collect(f"up_blocks.{i}.", new)
        return hidden, scores


def abstract_params(config: UNetConfig) -> dict:
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    size = 2 ** (len(config.block_out_channels) - 1)
    return jax.eval_shape(
        UNet2DCondition(config).init,
        jax.random.key(0),
        jnp.zeros((1, size, size, config.in_channels)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, config.cross_attention_dim)),
    )["params"]
