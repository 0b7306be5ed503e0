"""The denoising UNet of Stable Diffusion and SDXL: a prediction, and cross-attention scores.

Reference: diffusers `models/unets/unet_2d_condition.py`, `unet_2d_blocks.py`; parameter names are
those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.models.attention import Learned, Reduce, deal, mean_lse, repeat_rows
from dsd_jax.models.block_policy import Blocks
from dsd_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv3x3
from dsd_jax.models.time_embedding import TimeEmbedding, sinusoidal_embedding, text_and_size
from dsd_jax.models.transformer import Transformer
from dsd_jax.models.unet_config import UNetConfig


@dataclass(frozen=True)
class Text:
    """What the UNet is conditioned on: `states` (S, J, L, K), and what is `learned` per layer.

    `rows` is how many rows there are once captions have met latents.
    """

    states: jax.Array
    learned: Mapping[str, Learned]
    rows: int

    def below(self, prefix: str) -> "Text":
        """The same with only the layers whose path starts with `prefix`, and without it."""
        learned = {
            path[len(prefix) :]: layer
            for path, layer in self.learned.items()
            if path.startswith(prefix)
        }
        return Text(self.states, learned, self.rows)


class _Block(nn.Module):
    """What every block of the UNet needs to build its layers."""

    config: UNetConfig
    level: int
    reduce: Reduce
    blocks: Blocks
    dtype: jnp.dtype

    def resnet(self, i: int) -> ResnetBlock:
        c = self.config
        features = c.block_out_channels[self.level]
        block = self.blocks.prepare(ResnetBlock)
        return block(features, c.norm_num_groups, c.norm_eps, self.dtype, name=f"resnets_{i}")

    def attend(self, i: int, hidden: jax.Array, text: Text) -> tuple[jax.Array, dict]:
        """Run transformer `i`; scores are keyed by the path below this block."""
        c = self.config
        transformer = Transformer(
            heads=c.heads[self.level],
            depth=c.depths[self.level],
            groups=c.norm_num_groups,
            linear=c.linear_projection,
            upcast=c.upcast_attention,
            reduce=self.reduce,
            rows=text.rows,
            blocks=self.blocks,
            dtype=self.dtype,
            name=f"attentions_{i}",
        )
        prefix = f"attentions.{i}."
        out, scores = transformer(hidden, text.states, text.below(prefix).learned)
        return out, {prefix + path: score for path, score in scores.items()}


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
            hidden = self.blocks.prepare(Downsample)(padding, self.dtype, name="downsamplers_0")(
                hidden
            )
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
            sampler = self.blocks.prepare(Upsample)
            hidden = sampler(self.dtype, name="upsamplers_0")(hidden)
        return hidden, scores


class UNet2DCondition(nn.Module):
    """The denoiser. What the caller does not use of its results, XLA does not compute."""

    config: UNetConfig
    reduce: Reduce = mean_lse
    blocks: Blocks = Blocks()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        latents: jax.Array,
        timesteps: jax.Array,
        states: jax.Array,
        learned: Mapping[str, Learned] | None = None,
        pooled: jax.Array | None = None,
        image_size: int = 0,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Predict the noise (or v) of every row, and reduce every cross-attention layer's logits.

        Args:
            latents: (R, H, W, in_channels) noisy latents.
            timesteps: (R,) in [0, 1000).
            states: (S, J, L, K), text states of S sets of J captions; R is a multiple of S, and
                every set meets its R / S latents, which stand side by side.
            learned: what is learned per attention layer, by its path (`prompts.by_layer`).
            pooled: (S, J, A), for SDXL, whose time embedding it is added to.
            image_size: side of the pictures in pixels, for SDXL, which is told it.

        Returns:
            (B, H, W, out_channels) float32 and {layer path: reduce(logits (B, N, Q, L))}, where
            B = R * J, the J captions of a latent side by side. What precedes the first
            cross-attention, or in SDXL the first time embedding, is computed once per latent.

        Raises:
            UserError: `pooled` is not as wide as the config says.
        """
        c = self.config
        rows = latents.shape[0] * states.shape[1]
        text = Text(states.astype(self.dtype), learned or {}, rows)
        time = sinusoidal_embedding(timesteps, c.block_out_channels[0])
        time = self._embed("time_embedding", time)
        if c.pooled_dim:
            added = self._embed("add_embedding", text_and_size(c, pooled, image_size))
            time = repeat_rows(time, rows) + deal(added, rows)
        hidden = conv3x3(c.block_out_channels[0], self.dtype, "conv_in")(latents.astype(self.dtype))
        hidden, scores = self._levels(hidden, time, text)
        # The last layers in float32: errors are differences of nearly equal numbers.
        hidden = nn.GroupNorm(
            c.norm_num_groups, epsilon=c.norm_eps, dtype=jnp.float32, name="conv_norm_out"
        )(hidden)
        return conv3x3(c.out_channels, jnp.float32, "conv_out")(jax.nn.silu(hidden)), scores

    def _embed(self, name: str, x: jax.Array) -> jax.Array:
        features = 4 * self.config.block_out_channels[0]
        return TimeEmbedding(features, self.dtype, name=name)(x.astype(self.dtype))

    def _levels(self, hidden, time, text: Text):
        """Down, middle and up; a block's scores get the block's path in front."""
        c, skips, scores = self.config, [hidden], {}
        levels = len(c.block_out_channels)

        def collect(prefix: str, new: dict) -> None:
            scores.update({prefix + path: score for path, score in new.items()})

        def build(block: type[_Block], level: int, name: str) -> _Block:
            return block(c, level, self.reduce, self.blocks, self.dtype, name=name)

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
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    size = 2 ** (len(config.block_out_channels) - 1)
    return jax.eval_shape(
        UNet2DCondition(config).init,
        jax.random.key(0),
        jnp.zeros((1, size, size, config.in_channels)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, 1, config.cross_attention_dim)),
        pooled=jnp.zeros((1, 1, config.pooled_dim)),
    )["params"]
