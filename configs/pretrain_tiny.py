"""Trains the bundled model from scratch on two CPU cores, in hours.

python -m dsd_jax.pretrain --config=configs/pretrain_tiny.py --workdir=runs/pretrain
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The bundled model's architecture and training."""
    config = ConfigDict()
    config.model = "stable-diffusion"  # what is trained: this, or "clip"
    config.seed = 0
    config.start = ""  # a model to go on from: "tiny" or a folder; its VAE is kept as it is
    config.cpu_devices = 2  # simulated CPU devices, one per core: twice as fast as one of two cores

    config.vae = ConfigDict()
    config.vae.block_out_channels = (16, 32, 64, 128)  # an 8x8 grid of latents per 64x64 picture
    config.vae.latent_channels = 12
    config.vae.norm_num_groups = 8
    config.vae.encoder_steps = 600  # steps against the linear decoder alone
    config.vae.steps = 1400  # in total
    config.vae.batch = 32  # pictures per step; twice as many against the linear decoder
    config.vae.learning_rate = 2e-3

    config.text = ConfigDict()
    config.text.hidden_size = 128
    config.text.layers = 3
    config.text.heads = 4
    config.text.steps = 2000  # of learning to read
    config.text.batch = 128  # captions per step
    config.text.learning_rate = 1e-3

    config.unet = ConfigDict()
    config.unet.block_out_channels = (64, 128)
    config.unet.heads = 4
    config.unet.norm_num_groups = 16

    config.denoiser = ConfigDict()
    config.denoiser.steps = 15_000
    config.denoiser.batch = 32  # pictures per step, each with two timesteps and noises
    config.denoiser.learning_rate = 1e-3
    # "epsilon" or "v_prediction": v is the picture where the noise is strong, and so what captions
    # are about; as noise to be copied with a small correction it is learned much more slowly.
    config.denoiser.prediction = "v_prediction"
    config.denoiser.cooldown = 0.3  # part of the steps over which the rate falls to zero
    config.denoiser.pool = 8192  # pictures encoded at a time
    config.denoiser.passes = 4  # times each of them is used, with other captions and noise

    config.save_seconds = 300.0  # between checkpoints
    return config
