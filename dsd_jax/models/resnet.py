"""Residual convolution blocks and resampling, shared by the UNet and the VAE.

Reference: diffusers `models/resnet.py`, `downsampling.py`, `upsampling.py`.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.models.attention import repeat_rows


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions with a residual; in the UNet the time embedding enters between them."""

    features: int
    groups: int
    epsilon: float
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array | None = None) -> jax.Array:
        """`x` (R, H, W, F_in) and `time` (S, E) -> (B, H, W, F), where B is the larger of R and S.

        Rows of `x` that stand side by side may share a row of `time`, or the other way round.
        """
        rows = max(len(x), 0 if time is None else len(time))
        hidden = conv3x3(self.features, self.dtype, "conv1")(self._activate("norm1", x))
        if time is not None:
            time = nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")(
                jax.nn.silu(time)
            )
            # In SDXL a caption is part of `time`; what came before was shared by all of an image.
            hidden = repeat_rows(hidden, rows) + repeat_rows(time, rows)[:, None, None, :]
        hidden = conv3x3(self.features, self.dtype, "conv2")(self._activate("norm2", hidden))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return repeat_rows(x, rows) + hidden

    def _activate(self, name: str, x: jax.Array) -> jax.Array:
        return jax.nn.silu(
            nn.GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name=name)(x)
        )


class Downsample(nn.Module):
    """Halve the grid by a strided convolution; the VAE pads only below and to the right."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Conv(
            x.shape[-1], (3, 3), strides=2, padding=self.padding, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """Double the grid by nearest neighbours, then convolve."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return conv3x3(x.shape[-1], self.dtype, "conv")(x.repeat(2, axis=1).repeat(2, axis=2))


def conv3x3(features: int, dtype: jnp.dtype, name: str) -> nn.Conv:
    """A 3x3 convolution that keeps the grid."""
    return nn.Conv(features, (3, 3), padding=1, dtype=dtype, name=name)
