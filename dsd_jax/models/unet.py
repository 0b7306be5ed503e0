"""The denoising UNet of Stable Diffusion and SDXL: a prediction, and cross-attention scores.

Reference: diffusers `models/unets/unet_2d_condition.py`, `unet_2d_blocks.py`, `embeddings.py`;
parameter names are those of its Flax port.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from dsd_jax.errors import UserError
from dsd_jax.models.attention import (
    AdapterParams,
    Reduce,
    broadcast_to_rows,
    mean_lse,
    repeat_rows,
)
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv3x3
from dsd_jax.models.transformer import Transformer
from dsd_jax.models.unet_config import UNetConfig

ArrayLike = Array | np.ndarray


def sinusoidal_embedding(
    timesteps: Int[ArrayLike, " R"], features: int
) -> Float[Array, "R {features}"]:
    """Return sinusoids, cosines first (`flip_sin_to_cos`), float32."""
    half = features // 2
    frequencies = jnp.exp(-math.log(10_000) * jnp.arange(half, dtype=jnp.float32) / half)
    angles = timesteps.astype(jnp.float32)[:, None] * frequencies
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class _TimeEmbedding(nn.Module):
    """The MLP behind the sinusoids."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "*R D"]) -> Float[Array, "*R {self.features}"]:
        x = nn.Dense(self.features, dtype=self.dtype, name="linear_1")(x)
        return nn.Dense(self.features, dtype=self.dtype, name="linear_2")(jax.nn.silu(x))


def _add_sizes(
    config: UNetConfig, pooled: Float[ArrayLike, "S J A"] | None, image_size: int
) -> Float[Array, "S J D"]:
    """Append the sinusoids of SDXL's six size numbers to the pooled text, float32.

    The numbers are the original height and width, the crop's top and left, and the target height
    and width. Images are resized whole to the model's own size, so they are (size, size, 0, 0,
    size, size), as when diffusers generates an image of that size.

    Raises:
        UserError: `pooled` is not as wide as the config says.
    """
    width = 0 if pooled is None else pooled.shape[-1]
    if pooled is None or width != config.pooled_dim:
        raise UserError(
            f"the captions' pooled part is {width} wide, expected {config.pooled_dim} for this "
            "SDXL; give captions as strings or as Model.encode_captions returns them."
        )
    sizes = jnp.array([image_size, image_size, 0, 0, image_size, image_size])
    sizes = sinusoidal_embedding(sizes, config.addition_time_dim).reshape(-1)
    sizes = jnp.broadcast_to(sizes, (*pooled.shape[:2], sizes.size))
    return jnp.concatenate([pooled, sizes], axis=-1)


@dataclass(frozen=True)
class Conditioning:
    """The inputs of a UNet's blocks that all of them share.

    Attributes:
        states: text states.
        adapters: adapter params of each attention layer, by its path below the block.
        rows: B, the number of rows once captions have met latents.
    """

    states: Float[Array, "S J L E"]
    adapters: Mapping[str, AdapterParams]
    rows: int

    def below(self, prefix: str) -> "Conditioning":
        """Return a copy with only the adapters whose path starts with `prefix`, which is cut."""
        adapters = {
            path[len(prefix) :]: adapter
            for path, adapter in self.adapters.items()
            if path.startswith(prefix)
        }
        return replace(self, adapters=adapters)


class _Block(nn.Module):
    """The base of a UNet's blocks: it builds their layers."""

    config: UNetConfig
    level: int
    reduce: Reduce
    policy: BlockPolicy
    dtype: DTypeLike

    def resnet(self, i: int) -> ResnetBlock:
        c = self.config
        features = c.block_out_channels[self.level]
        block = self.policy.prepare(ResnetBlock)
        return block(features, c.norm_num_groups, c.norm_eps, self.dtype, name=f"resnets_{i}")

    def attend(
        self, i: int, hidden: Float[Array, "R h w D"], text: Conditioning
    ) -> tuple[Float[Array, "B h w D"], dict[str, Array]]:
        """Run transformer `i`; its scores are keyed by the path below this block."""
        c = self.config
        transformer = Transformer(
            heads=c.heads[self.level],
            depth=c.depths[self.level],
            groups=c.norm_num_groups,
            linear=c.linear_projection,
            upcast=c.upcast_attention,
            reduce=self.reduce,
            rows=text.rows,
            policy=self.policy,
            dtype=self.dtype,
            name=f"attentions_{i}",
        )
        prefix = f"attentions.{i}."
        out, scores = transformer(hidden, text.states, text.below(prefix).adapters)
        return out, {prefix + path: score for path, score in scores.items()}


class DownBlock(_Block):
    """A block of resnets, transformers at some resolutions, and a downsampler but in the last."""

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "R h w D"], time: Float[Array, "S T"], text: Conditioning
    ) -> tuple[Float[Array, "B v u E"], list[Array], dict[str, Array]]:
        """Return the hidden state, what the up blocks will read, and the scores."""
        c, skips, scores = self.config, [], {}
        for i in range(c.layers_per_block):
            hidden = self.resnet(i)(hidden, time)
            if c.down_attention[self.level]:
                hidden, new = self.attend(i, hidden, text)
                scores |= new
            skips.append(hidden)
        if self.level < len(c.block_out_channels) - 1:
            padding = ((1, 1), (1, 1))
            hidden = self.policy.prepare(Downsample)(padding, self.dtype, name="downsamplers_0")(
                hidden
            )
            skips.append(hidden)
        return hidden, skips, scores


class MidBlock(_Block):
    """A block of resnet, transformer, resnet at the coarsest resolution."""

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "R h w D"], time: Float[Array, "S T"], text: Conditioning
    ) -> tuple[Float[Array, "B h w D"], dict[str, Array]]:
        """Return the hidden state and the scores."""
        hidden = self.resnet(0)(hidden, time)
        hidden, scores = self.attend(0, hidden, text)
        return self.resnet(1)(hidden, time), scores


class UpBlock(_Block):
    """The mirror of a down block, with its skip connections concatenated."""

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "R h w D"],
        skips: list[Array],
        time: Float[Array, "S T"],
        text: Conditioning,
    ) -> tuple[Float[Array, "B v u E"], dict[str, Array]]:
        """Return the hidden state and the scores; takes its skips off the end of `skips`."""
        c, scores = self.config, {}
        for i in range(c.layers_per_block + 1):
            skip = repeat_rows(skips.pop(), hidden.shape[0])
            hidden = self.resnet(i)(jnp.concatenate([hidden, skip], axis=-1), time)
            if c.up_attention[len(c.block_out_channels) - 1 - self.level]:
                hidden, new = self.attend(i, hidden, text)
                scores |= new
        if self.level > 0:
            sampler = self.policy.prepare(Upsample)
            hidden = sampler(self.dtype, name="upsamplers_0")(hidden)
        return hidden, scores


class UNet2DCondition(nn.Module):
    """The denoising network; XLA does not compute results that the caller does not use."""

    config: UNetConfig
    reduce: Reduce = mean_lse
    policy: BlockPolicy = BlockPolicy()
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: Float[ArrayLike, "R h w {self.config.in_channels}"],
        timesteps: Int[ArrayLike, " R"],
        states: Float[ArrayLike, "S J L {self.config.cross_attention_dim}"],
        adapters: Mapping[str, AdapterParams] | None = None,
        pooled: Float[ArrayLike, "S J A"] | None = None,
        *,
        image_size: int = 0,
    ) -> tuple[Float[Array, "R*J h w {self.config.out_channels}"], dict[str, Array]]:
        """Predict the noise (or v) of each row; reduce the logits of each cross-attention layer.

        Args:
            latents: noisy latents.
            timesteps: in [0, 1000).
            states: text states of S sets of J captions; R is a multiple of S, and each set meets
                R / S adjacent latents.
            adapters: adapter params of each attention layer, by its path (`prompts.by_layer`).
            pooled: pooled text, added to the time embedding of SDXL.
            image_size: side of the images in pixels, an input of SDXL.

        Returns:
            The prediction, float32, and {layer path: reduce(logits (B, H, N, L))}, where
            B = R * J, the J captions of a latent in adjacent rows. The layers
            before the first cross-attention, or in SDXL before the first time embedding, run once
            per latent.

        Raises:
            UserError: `pooled` is not as wide as the config says.
        """
        c = self.config
        rows = latents.shape[0] * states.shape[1]
        text = Conditioning(jnp.asarray(states, self.dtype), adapters or {}, rows)
        time = sinusoidal_embedding(timesteps, c.block_out_channels[0])
        time = self._embed("time_embedding", time)
        if c.pooled_dim:
            added = self._embed("add_embedding", _add_sizes(c, pooled, image_size))
            time = repeat_rows(time, rows) + broadcast_to_rows(added, rows)
        conv = self.policy.gathered(nn.Conv)
        hidden = conv3x3(c.block_out_channels[0], self.dtype, "conv_in", conv)(
            jnp.asarray(latents, self.dtype)
        )
        hidden, scores = self._levels(hidden, time, text)
        # The last layers in float32: errors are differences of nearly equal numbers.
        hidden = nn.GroupNorm(
            c.norm_num_groups, epsilon=c.norm_eps, dtype=jnp.float32, name="conv_norm_out"
        )(hidden)
        hidden = jax.nn.silu(hidden)
        return conv3x3(c.out_channels, jnp.float32, "conv_out", conv)(hidden), scores

    def _embed(self, name: str, x: Float[Array, "*R D"]) -> Float[Array, "*R E"]:
        features = 4 * self.config.block_out_channels[0]
        embed = self.policy.gathered(_TimeEmbedding)
        return embed(features, self.dtype, name=name)(x.astype(self.dtype))

    def _levels(
        self, hidden: Float[Array, "R h w D"], time: Float[Array, "S T"], text: Conditioning
    ) -> tuple[Float[Array, "B h w D"], dict[str, Array]]:
        """Run all blocks, down, middle and up; return hidden state and scores by full path."""
        c, skips, scores = self.config, [hidden], {}
        levels = len(c.block_out_channels)

        def collect(prefix: str, new: dict) -> None:
            scores.update({prefix + path: score for path, score in new.items()})

        def build(block: type[_Block], level: int, name: str) -> _Block:
            return block(c, level, self.reduce, self.policy, self.dtype, name=name)

        for i in range(levels):
            block = build(DownBlock, i, f"down_blocks_{i}")
            hidden, new_skips, new = block(hidden, time, text.below(f"down_blocks.{i}."))
            skips += new_skips
            collect(f"down_blocks.{i}.", new)
        block = build(MidBlock, levels - 1, "mid_block")
        hidden, new = block(hidden, time, text.below("mid_block."))
        collect("mid_block.", new)
        for i in range(levels):
            block = build(UpBlock, levels - 1 - i, f"up_blocks_{i}")
            hidden, new = block(hidden, skips, time, text.below(f"up_blocks.{i}."))
            collect(f"up_blocks.{i}.", new)
        return hidden, scores


def abstract_params(config: UNetConfig) -> dict:
    """Return the parameter tree's shapes, uncomputed: nested dicts of ShapeDtypeStruct."""
    size = 2 ** (len(config.block_out_channels) - 1)
    return jax.eval_shape(
        UNet2DCondition(config).init,
        jax.random.key(0),
        jnp.zeros((1, size, size, config.in_channels)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, 1, config.cross_attention_dim)),
        pooled=jnp.zeros((1, 1, config.pooled_dim)),
    )["params"]
