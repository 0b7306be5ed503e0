"""Trains the bundled CLIP from scratch on one CPU core, in an hour.

python -m dsd_jax.pretrain --config=configs/pretrain_clip.py --workdir=runs/pretrain-clip
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """Return the bundled CLIP's architecture and training."""
    config = ConfigDict()
    config.model = "clip"
    config.seed = 0
    config.cpu_devices = 1

    config.text = ConfigDict()  # as the bundled Stable Diffusion's
    config.text.hidden_size = 128
    config.text.layers = 3
    config.text.heads = 4

    config.vision = ConfigDict()
    config.vision.hidden_size = 128
    config.vision.layers = 3
    config.vision.heads = 4
    config.vision.patch_size = 8  # 64 patches in a 64x64 image

    config.projection = 128

    config.contrast = ConfigDict()
    config.contrast.steps = 3000  # 384,000 pairs
    config.contrast.batch = 128  # pairs, each contrasted with all others
    config.contrast.learning_rate = 1e-3
    config.contrast.cooldown = 0.3
    config.contrast.pool = 8192
    config.contrast.passes = 4

    config.save_seconds = 180.0
    return config
