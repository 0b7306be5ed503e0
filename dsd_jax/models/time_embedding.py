"""What the UNet knows of a row before it looks at it: the timestep, in SDXL text and size too.

Reference: diffusers `models/embeddings.py` (`Timesteps`, `TimestepEmbedding`).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.errors import UserError
from dsd_jax.models.unet_config import UNetConfig


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


def text_and_size(config: UNetConfig, pooled: jax.Array | None, image_size: int) -> jax.Array:
    """What SDXL embeds beside the timestep of each caption: (S, J, A) -> (S, J, A'), float32.

    After the pooled text come the sinusoids of six numbers: original height and width, top and left
    of the crop, target height and width. Pictures are resized whole to the model's own size, so
    these are (size, size, 0, 0, size, size), as when diffusers draws a picture of that size.

    Raises:
        UserError: `pooled` is not as wide as the config says.
    """
    found = 0 if pooled is None else pooled.shape[-1]
    if found != config.pooled_dim:
        raise UserError(
            f"the captions' pooled part is {found} wide, expected {config.pooled_dim} for this "
            "SDXL; give captions as strings or as Model.encode_captions returns them."
        )
    sizes = jnp.array([image_size, image_size, 0, 0, image_size, image_size])
    sizes = sinusoidal_embedding(sizes, config.addition_time_dim).reshape(-1)
    sizes = jnp.broadcast_to(sizes, (*pooled.shape[:2], sizes.size))
    return jnp.concatenate([pooled, sizes], axis=-1)
