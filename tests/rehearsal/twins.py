"""Narrow twins of published models: every width divided, all else as published.

Depth, numbers of heads, image and latent sizes, tokenizer, schedule and folder layout are the real
ones, so that shapes, memory and files behave as with the real model at a fraction of the cost.

    python -m tests.rehearsal.twins sd21 FOLDER
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsd_jax.clip.clip_files import COMPONENT
from tests import full_size
from tests.conftest import GOLDENS, write_tokenizer
from tests.synthetic import torch_shapes, write_random

BY = 8  # the divisor of every width
_WIDTHS = (
    *("addition_time_embed_dim", "block_out_channels", "cross_attention_dim", "hidden_size"),
    *("intermediate_size", "norm_num_groups", "projection_class_embeddings_input_dim"),
    "projection_dim",
)
_FEWER = {"layers_per_block": 1, "num_hidden_layers": 4}
_HEADS_BY = 5
_GROUPS = 32  # of every published UNet and VAE, whose configs may leave it out
# config.json of openai/clip-vit-large-patch14.
CLIP_VIT_L = {
    "architectures": ["CLIPModel"],
    "projection_dim": 768,
    "text_config": {
        "hidden_act": "quick_gelu",
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "num_hidden_layers": 12,
        "vocab_size": 49408,
    },
    "vision_config": {
        "hidden_act": "quick_gelu",
        "hidden_size": 1024,
        "image_size": 224,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
    },
}
NAMES = (*full_size.MODELS, "clip-vit-l")


def narrow(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's `config.json` with every width divided by `BY`, in its parts too."""
    divided: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            value = narrow(value)
        elif name in _WIDTHS:
            value = [x // BY for x in value] if isinstance(value, list) else value // BY
        divided[name] = value
    if "block_out_channels" in config:
        divided["norm_num_groups"] = config.get("norm_num_groups", _GROUPS) // BY
    return divided


def shallow(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component's `config.json` with one layer a block, four in all, and few heads."""
    cut: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            value = shallow(value)
        elif name in _FEWER:
            value = min(value, _FEWER[name])
        elif name == "attention_head_dim":  # numbers of heads, in spite of their name
            value = [heads // _HEADS_BY for heads in value]
        cut[name] = value
    return cut


def write_twin(name: str, folder: Path, *, deep: bool = True) -> Path:
    """Write the twin of a published model with random float16 weights in the Hub's layout.

    Args:
        name: one of `NAMES`.
        folder: where; created.
        deep: as the published model; otherwise `shallow`, for SD 2.1 and CLIP.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if name == "clip-vit-l":
        config = narrow(CLIP_VIT_L)
        _write_clip(config if deep else shallow(config), folder)
        return folder
    golden, configs = full_size.MODELS[name]
    configs = {component: narrow(config) for component, config in configs.items()}
    if not deep:
        configs = {component: shallow(config) for component, config in configs.items()}
    full_size.write_folder(name, golden, configs, folder)
    return folder


def _write_clip(config: Mapping[str, Any], folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(config))
    shutil.copytree(GOLDENS / "tiny-sd15" / "tokenizer", folder, dirs_exist_ok=True)
    write_tokenizer(folder)
    write_random(folder / "model.safetensors", torch_shapes(COMPONENT, config), seed=0)


def main() -> None:
    """Write the twin that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", choices=NAMES)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    write_twin(options.model, options.folder)


if __name__ == "__main__":
    main()
