"""Trains the bundled model from scratch on two CPU cores, in hours.

python -m dsd_jax.pretrain --config=configs/pretrain_tiny.py --workdir=runs/pretrain
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the bundled model's architecture and training."""
    config = ConfigDict()
    config.model = "stable-diffusion"
    config.seed = 0
    config.start = ""
    config.cpu_devices = 2

    config.vae = ConfigDict()
    config.vae.block_out_channels = (16, 32, 64, 128)  # an 8x8 grid of latents per 64x64 image
    config.vae.latent_channels = 12
    config.vae.norm_num_groups = 8
    config.vae.encoder_steps = 600
    config.vae.steps = 1400
    config.vae.batch = 32
    config.vae.learning_rate = 2e-3

    config.text = ConfigDict()
    config.text.hidden_size = 128
    config.text.layers = 3
    config.text.heads = 4
    config.text.steps = 2000
    config.text.batch = 128
    config.text.learning_rate = 1e-3

    config.unet = ConfigDict()
    config.unet.block_out_channels = (64, 128)
    config.unet.heads = 4
    config.unet.norm_num_groups = 16

    config.denoiser = ConfigDict()
    config.denoiser.steps = 15_000
    config.denoiser.batch = 32  # images per step, each with two timesteps and noises
    config.denoiser.learning_rate = 1e-3
    # v is the image where the noise is strong, and so what captions
    # are about; as noise to be copied with a small correction it is learned much more slowly.
    config.denoiser.prediction = "v_prediction"
    config.denoiser.cooldown = 0.3
    config.denoiser.pool = 8192
    config.denoiser.passes = 4

    config.save_seconds = 300.0
    return config
