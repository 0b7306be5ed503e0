"""The configs of `pretrain`: the fields of configs/pretrain_*.py, with their ranges."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from dsd_jax.config.field_types import (
    PROFILE,
    TRACKER,
    Count,
    CPUDevices,
    PathText,
    ProfiledSteps,
    Rate,
    Seed,
    Size,
    Tracker,
)
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import Checked, List, mistake

POOL = 256  # images that are drawn at a time; a pool is a multiple of it
SIDE = 64  # pixels of an image
Channels = Annotated[List[Size], Field(min_length=1, max_length=7)]
Cooldown = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(gt=0, le=1e6)]


class VAEFields(Checked):
    """The fields of `vae`."""

    block_out_channels: Channels = Field(
        description="channels of levels; all but one halve the image"
    )
    latent_channels: Size = Field(description="channels of the latents")
    norm_num_groups: Size = Field(description="groups of channels that are normalized together")
    encoder_steps: Count = Field(description="steps against the linear decoder alone")
    steps: Count = Field(description="in total")
    batch: Size = Field(description="images per step; twice as many against the linear decoder")
    learning_rate: Rate = Field(description="peak rate of AdamW")

    @model_validator(mode="after")
    def _check(self) -> "VAEFields":
        _check_groups(self.block_out_channels, self.norm_num_groups)
        if self.encoder_steps > self.steps:
            raise mistake(
                "encoder_steps",
                f"is {self.encoder_steps}, expected at most the steps in total, {self.steps}",
            )
        return self


class TowerFields(Checked):
    """The fields of a transformer: `text` and `vision` of a CLIP."""

    hidden_size: Size = Field(description="dims of a token's hidden state")
    layers: Annotated[int, Field(ge=1, le=1000)] = Field(description="transformer blocks")
    heads: Size = Field(description="attention heads, which divide the hidden size")

    @model_validator(mode="after")
    def _check_heads(self) -> "TowerFields":
        if self.hidden_size % self.heads:
            raise mistake(
                "heads", f"is {self.heads}, expected a divisor of hidden_size, {self.hidden_size}"
            )
        return self


class TextFields(TowerFields):
    """The fields of `text` of a Stable Diffusion."""

    steps: Count = Field(description="steps of learning to read")
    batch: Size = Field(description="captions per step")
    learning_rate: Rate = Field(description="peak rate of AdamW")


class VisionFields(TowerFields):
    """The fields of `vision`."""

    patch_size: Literal[1, 2, 4, 8, 16, 32, 64] = Field(
        description="side of a patch in pixels; 8 makes 64 patches of a 64x64 image"
    )


class UNetFields(Checked):
    """The fields of `unet`."""

    block_out_channels: Channels = Field(description="channels of each level")
    heads: Size = Field(description="attention heads, which divide the channels")
    norm_num_groups: Size = Field(description="groups of channels that are normalized together")

    @model_validator(mode="after")
    def _check(self) -> "UNetFields":
        _check_groups(self.block_out_channels, self.norm_num_groups)
        for channels in self.block_out_channels:
            if channels % self.heads:
                raise mistake(
                    "heads", f"is {self.heads}, expected a divisor of all channels, {channels} too"
                )
        return self


class PoolFields(Checked):
    """The fields of a stage that draws its batches from pools of images."""

    steps: Count = Field(description="optimizer steps")
    batch: Size = Field(description="images per step")
    learning_rate: Rate = Field(description="peak rate of AdamW")
    cooldown: Cooldown = Field(description="part of the steps over which the rate falls to zero")
    pool: Annotated[int, Field(ge=POOL, le=2**20, multiple_of=POOL)] = Field(
        description="images drawn or encoded at a time"
    )
    passes: Count = Field(description="times that each of them is used, with other captions")

    @model_validator(mode="after")
    def _check_pool(self) -> "PoolFields":
        if self.batch > self.pool:
            raise mistake(
                "batch", f"is {self.batch}, expected at most the pool's images, {self.pool}"
            )
        return self


class DenoiserFields(PoolFields):
    """The fields of `denoiser`."""

    prediction: Literal["epsilon", "v_prediction"] = Field(
        description='what the UNet predicts, "epsilon" or "v_prediction"'
    )


class PretrainConfig(Checked):
    """A config of `pretrain` that trains a Stable Diffusion."""

    model: Literal["stable-diffusion"] = Field(description='model that is trained: this, or "clip"')
    seed: Seed = Field(description="seed of params, images and noise")
    start: PathText = Field(
        description='a model to go on from: "tiny" or a folder; its VAE is kept as it is'
    )
    cpu_devices: CPUDevices = Field(
        description="simulated CPU devices, one per core: twice as fast as one of two cores"
    )
    vae: VAEFields
    text: TextFields
    unet: UNetFields
    denoiser: DenoiserFields
    save_seconds: Seconds = Field(description="seconds between checkpoints")
    tracker: Tracker = Field("", description=TRACKER)
    profile: ProfiledSteps = Field("", description=PROFILE)

    @model_validator(mode="after")
    def _check_levels(self) -> "PretrainConfig":
        halvings = len(self.vae.block_out_channels) - 1
        grid, most = SIDE >> halvings, 3 * 4**halvings
        if self.vae.latent_channels > most:
            raise mistake(
                "vae.latent_channels",
                f"is {self.vae.latent_channels}, expected at most {most}, the numbers in a "
                "image's patch that becomes a latent",
            )
        levels = len(self.unet.block_out_channels)
        if grid % 2 ** (levels - 1):
            raise mistake(
                "unet.block_out_channels",
                f"has {levels} levels, expected fewer: each but one halves the {grid}x{grid} grid "
                "of latents",
            )
        return self


class ClipPretrainConfig(Checked):
    """A config of `pretrain` that trains a CLIP."""

    model: Literal["clip"] = Field(description='model that is trained: this, or "stable-diffusion"')
    seed: Seed = Field(description="seed of params and images")
    cpu_devices: CPUDevices = Field(description="simulated CPU devices")
    text: TowerFields
    vision: VisionFields
    projection: Size = Field(description="dims of the space in which both towers meet")
    contrast: PoolFields
    save_seconds: Seconds = Field(description="seconds between checkpoints")
    tracker: Tracker = Field("", description=TRACKER)
    profile: ProfiledSteps = Field("", description=PROFILE)


def _check_groups(channels: Sequence[int], groups: int) -> None:
    for count in channels:
        if count % groups:
            raise mistake(
                "norm_num_groups", f"is {groups}, expected a divisor of all channels, {count} too"
            )


def kind_of(values: Mapping[str, Any]) -> type[Checked]:
    """Return the class of a config by its field `model`.

    Raises:
        UserError: it names no model that `pretrain` trains.
    """
    kinds = {"stable-diffusion": PretrainConfig, "clip": ClipPretrainConfig}
    model = values.get("model")
    if not isinstance(model, str) or model not in kinds:
        raise UserError(f"model is {shorten(model)}, expected one of {', '.join(kinds)}.")
    return kinds[model]
