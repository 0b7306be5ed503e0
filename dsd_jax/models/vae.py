"""The autoencoder of Stable Diffusion: images to latents and back.

Reference: diffusers `models/autoencoders/autoencoder_kl.py` and `vae.py`; parameter names are
those of its Flax port.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float
from pydantic import BeforeValidator, Field, model_validator

from dsd_jax.io.validation import parse
from dsd_jax.models.attention import attend, split_heads
from dsd_jax.models.json_config import (
    REMEDY,
    Channels,
    ConfigFile,
    LayersPerBlock,
    Width,
    Widths,
    check_divisors,
    refuse,
)
from dsd_jax.models.resnet import Downsample, ResnetBlock, Upsample, conv3x3

_EPSILON = 1e-6
_DEFAULT_SIDE = 512  # pixels
_LOGVAR_RANGE = (-30.0, 20.0)
_FIXED = {
    "act_fn": "silu",
    "in_channels": 3,
    "out_channels": 3,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "use_quant_conv": True,
    "use_post_quant_conv": True,
    "mid_block_add_attention": True,
}


def _unused_side(value: Any) -> Any:
    """Return a valid side or the default: nothing depends on it, and some files hold a pair."""
    return value if type(value) is int and value > 0 else _DEFAULT_SIDE


class _VAEFile(ConfigFile):
    """The fields of `vae/config.json` that decide a VAE's shape, by diffusers' names."""

    block_out_channels: Widths
    layers_per_block: LayersPerBlock = 2
    latent_channels: Channels = 4
    norm_num_groups: Width = 32
    scaling_factor: float = Field(0.18215, gt=0)  # configs before 0.13 lack it
    sample_size: Annotated[int, BeforeValidator(_unused_side)] = _DEFAULT_SIDE
    force_upcast: bool | None = None

    @model_validator(mode="after")
    def _check_groups(self) -> "_VAEFile":
        widths = self.block_out_channels
        check_divisors(widths, (self.norm_num_groups,) * len(widths), "norm_num_groups")
        return self


@dataclass(frozen=True)
class VAEConfig:
    """The fields of a VAE's `config.json` that decide its shape.

    Attributes:
        force_upcast: whether activations overflow float16, as in SDXL's.
    """

    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    norm_num_groups: int
    scaling_factor: float
    sample_size: int
    force_upcast: bool = False

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "VAEConfig":
        """Read a diffusers `vae/config.json`; raises `UserError` for another network."""
        where = "vae/config.json"
        file = parse(_VAEFile, json, where, REMEDY)
        blocks = len(file.block_out_channels)
        types = {
            "down_block_types": ["DownEncoderBlock2D"] * blocks,
            "up_block_types": ["UpDecoderBlock2D"] * blocks,
        }
        refuse(where, json, _FIXED | types)
        return cls(
            block_out_channels=file.block_out_channels,
            layers_per_block=file.layers_per_block,
            latent_channels=file.latent_channels,
            norm_num_groups=file.norm_num_groups,
            scaling_factor=file.scaling_factor,
            sample_size=file.sample_size,
            force_upcast=bool(file.force_upcast),
        )

    def to_json(self) -> dict[str, Any]:
        """Return the `vae/config.json` that diffusers reads back as the same network."""
        blocks = len(self.block_out_channels)
        return {
            "_class_name": "AutoencoderKL",
            "_diffusers_version": "0.10.0",
            "act_fn": "silu",
            "block_out_channels": list(self.block_out_channels),
            "down_block_types": ["DownEncoderBlock2D"] * blocks,
            "in_channels": 3,
            "latent_channels": self.latent_channels,
            "layers_per_block": self.layers_per_block,
            "norm_num_groups": self.norm_num_groups,
            "out_channels": 3,
            "sample_size": self.sample_size,
            "scaling_factor": self.scaling_factor,
            "force_upcast": self.force_upcast,
            "up_block_types": ["UpDecoderBlock2D"] * blocks,
        }

    @property
    def downscale(self) -> int:
        """Return the pixels per latent position along one side."""
        return 2 ** (len(self.block_out_channels) - 1)


class _Attention(nn.Module):
    """A single-head self-attention over the grid."""

    groups: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B h w D"]:
        features = x.shape[-1]
        hidden = nn.GroupNorm(self.groups, epsilon=_EPSILON, dtype=self.dtype, name="group_norm")(
            x
        ).reshape(x.shape[0], -1, features)
        query, key, value = (
            split_heads(nn.Dense(features, dtype=self.dtype, name=name)(hidden), 1)
            for name in ("query", "key", "value")
        )
        hidden = attend(query, key, value).reshape(hidden.shape)
        return x + nn.Dense(features, dtype=self.dtype, name="proj_attn")(hidden).reshape(x.shape)


class _Block(nn.Module):
    """The base of a VAE's blocks: it builds their resnets."""

    config: VAEConfig
    features: int
    dtype: DTypeLike

    def resnet(self, i: int) -> ResnetBlock:
        return ResnetBlock(
            self.features, self.config.norm_num_groups, _EPSILON, self.dtype, name=f"resnets_{i}"
        )


class _MidBlock(_Block):
    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B v u E"]:
        x = self.resnet(0)(x)
        x = _Attention(self.config.norm_num_groups, self.dtype, name="attentions_0")(x)
        return self.resnet(1)(x)


class _DownBlock(_Block):
    last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B v u E"]:
        for i in range(self.config.layers_per_block):
            x = self.resnet(i)(x)
        return (
            x if self.last else Downsample(((0, 1), (0, 1)), self.dtype, name="downsamplers_0")(x)
        )


class _UpBlock(_Block):
    last: bool

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B v u E"]:
        for i in range(self.config.layers_per_block + 1):
            x = self.resnet(i)(x)
        return x if self.last else Upsample(self.dtype, name="upsamplers_0")(x)


class Encoder(nn.Module):
    """The encoder: pixels to the moments of latents."""

    config: VAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w M"]:
        c = self.config
        x = conv3x3(c.block_out_channels[0], self.dtype, "conv_in")(x)
        for i, features in enumerate(c.block_out_channels):
            last = i == len(c.block_out_channels) - 1
            x = _DownBlock(c, features, self.dtype, last, name=f"down_blocks_{i}")(x)
        x = _MidBlock(c, c.block_out_channels[-1], self.dtype, name="mid_block")(x)
        x = nn.GroupNorm(
            c.norm_num_groups, epsilon=_EPSILON, dtype=self.dtype, name="conv_norm_out"
        )(x)
        return conv3x3(2 * c.latent_channels, self.dtype, "conv_out")(jax.nn.silu(x))


class Decoder(nn.Module):
    """The decoder: latents to pixels."""

    config: VAEConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Float[Array, "B h w D"]) -> Float[Array, "B H W 3"]:
        c = self.config
        x = conv3x3(c.block_out_channels[-1], self.dtype, "conv_in")(x)
        x = _MidBlock(c, c.block_out_channels[-1], self.dtype, name="mid_block")(x)
        for i, features in enumerate(reversed(c.block_out_channels)):
            last = i == len(c.block_out_channels) - 1
            x = _UpBlock(c, features, self.dtype, last, name=f"up_blocks_{i}")(x)
        x = nn.GroupNorm(
            c.norm_num_groups, epsilon=_EPSILON, dtype=self.dtype, name="conv_norm_out"
        )(x)
        return conv3x3(3, self.dtype, "conv_out")(jax.nn.silu(x))


class AutoencoderKL(nn.Module):
    """An encoder and a decoder around a diagonal Gaussian posterior."""

    config: VAEConfig
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        channels = self.config.latent_channels
        self.encoder = Encoder(self.config, self.dtype)
        self.decoder = Decoder(self.config, self.dtype)
        self.quant_conv = nn.Conv(2 * channels, (1, 1), dtype=self.dtype)
        self.post_quant_conv = nn.Conv(channels, (1, 1), dtype=self.dtype)

    def encode(
        self, pixels: Float[Array, "B H W 3"]
    ) -> tuple[Float[Array, "B h w D"], Float[Array, "B h w D"]]:
        """Return mean and log variance of the posterior of unscaled latents, float32.

        Args:
            pixels: in [-1, 1].
        """
        moments = self.quant_conv(self.encoder(pixels.astype(self.dtype))).astype(jnp.float32)
        mean, logvar = jnp.split(moments, 2, axis=-1)
        return mean, jnp.clip(logvar, *_LOGVAR_RANGE)

    def decode(self, latents: Float[Array, "B h w D"]) -> Float[Array, "B H W 3"]:
        """Return pixels, about [-1, 1], float32, of unscaled latents."""
        return self.decoder(self.post_quant_conv(latents.astype(self.dtype))).astype(jnp.float32)

    def __call__(self, pixels: Float[Array, "B H W 3"]) -> Float[Array, "B H W 3"]:
        """Reconstruct from the posterior's mean; reaches all params, for `init`."""
        return self.decode(self.encode(pixels)[0])


def abstract_params(config: VAEConfig) -> dict:
    """Return the parameter tree's shapes, uncomputed: nested dicts of ShapeDtypeStruct."""
    size = config.downscale
    pixels = jnp.zeros((1, size, size, 3))
    return jax.eval_shape(AutoencoderKL(config).init, jax.random.key(0), pixels)["params"]
