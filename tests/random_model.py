"""A model in memory with random weights, the smallest that has every part."""

from importlib.resources import as_file, files

import jax
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.noising import Schedule
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed.sharding import host_mesh, place_weight
from dsd_jax.models import text_encoder, unet, vae
from dsd_jax.models.text_encoder import TextConfig
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.weights.tokenizer_files import read_tokenizer

UNET = {
    "sample_size": 4,
    "in_channels": 4,
    "block_out_channels": [8, 16],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"],
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "attention_head_dim": 2,
    "norm_num_groups": 4,
}
VAE = {
    "block_out_channels": [8, 8],
    "down_block_types": ["DownEncoderBlock2D"] * 2,
    "up_block_types": ["UpDecoderBlock2D"] * 2,
    "latent_channels": 4,
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "sample_size": 8,
}
TEXT = {
    "vocab_size": 908,
    "hidden_size": 12,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
# What SDXL has of its own: a second text encoder, and pooled text of 10 beside six numbers of 4.
UNET_XL = UNET | {
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "cross_attention_dim": 20,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 34,
}
TEXT_2 = TEXT | {"hidden_size": 8, "num_hidden_layers": 2, "projection_dim": 10, "eos_token_id": 2}


def random_model(fsdp: int = 1, xl: bool = False, **unet_changes) -> Model:
    """Pictures of 8x8, latents of 4x4, four cross-attention layers with two heads each.

    With `xl`, SDXL's smallest, whose first level has no cross-attention.

    Calls with the same changes give equal models, so that compiled functions are shared.
    """
    with as_file(files("dsd_jax") / "assets" / "tiny" / "tokenizer") as folder:
        tokenizer = read_tokenizer(folder)
    configs = {
        "unet": UNetConfig.from_json((UNET_XL if xl else UNET) | unet_changes),
        "vae": vae.VAEConfig.from_json(VAE),
        "text": TextConfig.from_json(TEXT),
    }
    modules = {"unet": unet, "vae": vae, "text": text_encoder}
    second = {}
    if xl:
        modules["text_2"] = text_encoder
        configs["text_2"] = TextConfig.from_json(TEXT_2, projected=True)
        second = {"tokenizer_2": tokenizer, "zero_empty": True}
    shapes = {name: module.abstract_params(configs[name]) for name, module in modules.items()}
    rng, mesh = np.random.default_rng(0), host_mesh(fsdp)
    return Model(
        name="random",
        **configs,
        schedule=Schedule(),
        params=jax.tree_util.tree_map_with_path(lambda *leaf: _draw(rng, mesh, *leaf), shapes),
        tokenizer=tokenizer,
        **second,
        image_size=configs["unet"].sample_size * configs["vae"].downscale,
    )


def _draw(
    rng: np.random.Generator, mesh: Mesh, path: tuple, leaf: jax.ShapeDtypeStruct
) -> jax.Array:
    """Weights that keep activations near one, and attention logits that differ between captions."""
    names = [entry.key for entry in path]
    values = rng.normal(size=leaf.shape)
    if names[-1] == "kernel":
        values *= np.prod(leaf.shape[:-1]) ** -0.5
        values *= 1.3 if "attn2" in names and names[-2] in ("to_q", "to_k") else 1
        values *= 0.5 if "conv_out" in names else 1
    elif names[-1] != "embedding":
        values = 0.1 * values + (names[-1] == "scale")
    return place_weight("/".join(names), values.astype(np.float32), mesh)
