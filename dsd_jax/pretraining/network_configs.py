"""The network configs, schedule and tokenizer that a pre-training config asks for."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig
from dsd_jax.data.synthetic.scenes import SIDE
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import VAEConfig
from dsd_jax.models.vision_encoder import VisionConfig
from dsd_jax.weights.tokenizer_files import read_tokenizer

_TOKENIZER = Path(__file__).parents[1] / "assets" / "tiny" / "tokenizer"


def bundled_tokenizer() -> Any:
    """Read the tokenizer that `dsd_jax.assets.build_tokenizer` made for the scenes' captions."""
    return read_tokenizer(_TOKENIZER)


def vae_config(config: PretrainConfig) -> VAEConfig:
    """Return the VAE's config; its latents are whitened, so that they need no scale."""
    return VAEConfig(
        block_out_channels=config.vae.block_out_channels,
        layers_per_block=1,
        latent_channels=config.vae.latent_channels,
        norm_num_groups=config.vae.norm_num_groups,
        scaling_factor=1.0,
        sample_size=SIDE,
    )


def text_config(config: PretrainConfig | ClipPretrainConfig, vocabulary: int) -> TextConfig:
    """Return the text encoder's config, without a projection."""
    return TextConfig(
        vocab_size=vocabulary,
        hidden_size=config.text.hidden_size,
        intermediate_size=4 * config.text.hidden_size,
        layers=config.text.layers,
        heads=config.text.heads,
        positions=77,
        activation="quick_gelu",
        norm_eps=1e-5,
    )


def clip_config(config: ClipPretrainConfig, tokenizer: Any) -> CLIPConfig:
    """Return the CLIP's config; its text encoder is that of Stable Diffusion, with a projection."""
    vision = config.vision
    return CLIPConfig(
        text=replace(
            text_config(config, len(tokenizer)),
            projection=config.projection,
            end_token=tokenizer.eos_token_id,
        ),
        vision=VisionConfig(
            hidden_size=vision.hidden_size,
            intermediate_size=4 * vision.hidden_size,
            layers=vision.layers,
            heads=vision.heads,
            image_size=SIDE,
            patch_size=vision.patch_size,
            activation="quick_gelu",
            norm_eps=1e-5,
        ),
    )


def unet_config(config: PretrainConfig) -> UNetConfig:
    """Return the UNet's config: cross-attention at every resolution."""
    vae, levels = vae_config(config), len(config.unet.block_out_channels)
    return UNetConfig(
        sample_size=vae.sample_size // vae.downscale,
        in_channels=vae.latent_channels,
        out_channels=vae.latent_channels,
        block_out_channels=config.unet.block_out_channels,
        layers_per_block=1,
        cross_attention_dim=config.text.hidden_size,
        heads=(config.unet.heads,) * levels,
        depths=(1,) * levels,
        down_attention=(True,) * levels,
        up_attention=(True,) * levels,
        linear_projection=True,
        upcast_attention=False,
        norm_num_groups=config.unet.norm_num_groups,
        norm_eps=1e-5,
    )


def schedule(config: PretrainConfig) -> Schedule:
    """Return the noise schedule: Stable Diffusion's betas, and the UNet's prediction."""
    return Schedule(prediction=config.denoiser.prediction)
