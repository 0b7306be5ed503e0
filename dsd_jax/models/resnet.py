"""Residual convolution blocks and resampling, shared by the UNet and the VAE.

Reference: diffusers `models/resnet.py`, `downsampling.py`, `upsampling.py`.
"""

import flax.linen as nn
import jax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dsd_jax.models.attention import repeat_rows


class ResnetBlock(nn.Module):
    """A residual block of two 3x3 convolutions; the UNet adds its time embedding between them."""

    features: int
    groups: int
    epsilon: float
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "R h w D"], time: Float[Array, "S E"] | None = None
    ) -> Float[Array, "B h w {self.features}"]:
        """Return the block's output for B = max(R, S) rows.

        Adjacent rows of the larger share a row of the smaller.
        """
        rows = max(len(x), 0 if time is None else len(time))
        hidden = conv3x3(self.features, self.dtype, "conv1")(self._activate("norm1", x))
        if time is not None:
            project = nn.Dense(self.features, dtype=self.dtype, name="time_emb_proj")
            shift = repeat_rows(project(jax.nn.silu(time)), rows)[:, None, None, :]
            # All before is the same for the captions of an image; SDXL's `time` depends on them.
            hidden = repeat_rows(hidden, rows) + shift
        hidden = conv3x3(self.features, self.dtype, "conv2")(self._activate("norm2", hidden))
        if x.shape[-1] != self.features:
            x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv_shortcut")(x)
        return repeat_rows(x, rows) + hidden

    def _activate(self, name: str, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        return jax.nn.silu(
            nn.GroupNorm(self.groups, epsilon=self.epsilon, dtype=self.dtype, name=name)(x)
        )


class Downsample(nn.Module):
    """A strided convolution that halves the grid; the VAE pads only below and to the right."""

    padding: tuple[tuple[int, int], tuple[int, int]]
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h/2 w/2 D"]:
        return nn.Conv(
            x.shape[-1], (3, 3), strides=2, padding=self.padding, dtype=self.dtype, name="conv"
        )(x)


class Upsample(nn.Module):
    """A doubling of the grid by nearest neighbors, then a convolution."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B 2*h 2*w D"]:
        return conv3x3(x.shape[-1], self.dtype, "conv")(x.repeat(2, axis=1).repeat(2, axis=2))


def conv3x3(features: int, dtype: DTypeLike, name: str, conv: type[nn.Conv] = nn.Conv) -> nn.Conv:
    """Build a 3x3 convolution that keeps the grid."""
    return conv(features, (3, 3), padding=1, dtype=dtype, name=name)
