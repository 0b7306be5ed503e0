"""A CLIP in memory with random weights, the smallest that has every part."""

from importlib.resources import files
from pathlib import Path

import numpy as np

from dsd_jax.clip.clip_model import Clip, Normalizer
from dsd_jax.distributed.sharding import host_mesh, place_weight
from dsd_jax.models.clip import CLIPConfig, abstract_params
from dsd_jax.models.params import flatten, unflatten
from dsd_jax.weights.tokenizer_files import read_tokenizer

TOKENIZER = Path(str(files("dsd_jax"))) / "assets" / "tiny" / "tokenizer"
CLIP = {
    "text_config": {
        "vocab_size": 908,
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 24,
        "eos_token_id": 907,
    },
    "vision_config": {
        "hidden_size": 12,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    },
    "projection_dim": 8,
}


def random_clip(fsdp: int = 1) -> Clip:
    """Pictures of 8x8, captions of at most 24 tokens, E = 8; calls give equal models."""
    config = CLIPConfig.from_json(CLIP)
    tokenizer = read_tokenizer(TOKENIZER)
    tokenizer.model_max_length = config.text.positions
    rng, mesh, leaves = np.random.default_rng(0), host_mesh(fsdp), {}
    for path, leaf in flatten(abstract_params(config)).items():
        values = 0.5 * rng.normal(size=leaf.shape) + (path[-1] == "scale")
        leaves[path] = place_weight("/".join(path), values.astype(np.float32), mesh)
    leaves[("logit_scale",)] = place_weight("logit_scale", np.float32(2.0), mesh)
    return Clip("random", config, unflatten(leaves), tokenizer, Normalizer())
