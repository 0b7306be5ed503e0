"""The trained parameters, apart from the frozen model: a pytree of up to three kinds.

    {"lora":    {attention path: {"to_q" | "to_k" | "to_v" | "to_out": {"down": (F, r),
                                                                         "up": (r, F')}}},
     "tokens":  {cross-attention path: {"key": (M, F), "value": (M, F)}},
     "weights": {method: {"lse": {path: (H,)}, "lse_uncond": {path: (H,)},
                          "timesteps": (T,), "error": ()}}}

Paths are diffusers' module paths; F are features, r the rank of LoRA, M the number of tokens, H
heads. Untrained prompts change nothing: LoRA adds zero, weights are differences from the zero-shot
formula. Tokens start as small random keys with zero values.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.models.unet import abstract_params
from dsd_jax.models.unet_config import UNetConfig

KINDS = ("lora", "tokens", "weights")
PromptTree = Mapping[str, Any]
PROJECTIONS = {"to_q": "to_q", "to_k": "to_k", "to_v": "to_v", "to_out": "to_out_0"}


def module_path(path: Sequence[str]) -> str:
    """Return diffusers' module path of a path in the Flax tree: down_blocks_0 -> down_blocks.0."""
    return ".".join(re.sub(r"_(\d+)$", r".\1", name) for name in path)


@functools.cache  # tracing a UNet for its shapes takes two seconds
def attention_shapes(config: UNetConfig) -> dict[str, dict[str, tuple[int, int]]]:
    """Return {path: {"to_q": (in, out), ...}} of all self- and cross-attention layers."""
    shapes: dict[str, dict[str, tuple[int, int]]] = {}

    def walk(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        if path and path[-1] in ("attn1", "attn2"):
            shapes[module_path(path)] = {
                name: tuple(tree[key]["kernel"].shape) for name, key in PROJECTIONS.items()
            }
            return
        for name, child in tree.items():
            if isinstance(child, Mapping):
                walk(child, (*path, name))

    walk(abstract_params(config), ())
    return shapes


def init_lora(config: UNetConfig, key: jax.Array, rank: int = 4, layers: str = "attn") -> dict:
    """Return new low-rank updates of attention projections: down ~ N(0, (1/rank)^2), up = 0.

    Args:
        config: of the UNet.
        key: PRNG key.
        rank: of every update.
        layers: part of the paths of the layers: "attn" for all, "attn2" for cross-attention.
    """
    lora: dict[str, Any] = {}
    for layer, (path, shapes) in enumerate(sorted(attention_shapes(config).items())):
        if layers not in path:
            continue
        lora[path] = {}
        for part, (name, (inputs, outputs)) in enumerate(sorted(shapes.items())):
            part_key = jax.random.fold_in(jax.random.fold_in(key, layer), part)
            down = jax.random.normal(part_key, (inputs, rank)) / rank
            lora[path][name] = {"down": down, "up": jnp.zeros((rank, outputs))}
    return lora


def init_tokens(config: UNetConfig, key: jax.Array, count: int = 4) -> dict:
    """Return `count` new tokens for every cross-attention layer: small keys, zero values."""
    tokens = {}
    for layer, (path, shapes) in enumerate(sorted(attention_shapes(config).items())):
        if path.endswith("attn2"):
            features = shapes["to_k"][1]
            layer_key = jax.random.fold_in(key, layer)
            tokens[path] = {
                "key": 0.1 * jax.random.normal(layer_key, (count, features)),
                "value": jnp.zeros((count, features)),
            }
    return tokens


def by_layer(prompts: PromptTree) -> dict[str, Any]:
    """Return the adapter of each attention layer: LoRA by projection, and its "tokens"."""
    layers = {path: dict(updates) for path, updates in prompts.get("lora", {}).items()}
    for path, tokens in prompts.get("tokens", {}).items():
        layers.setdefault(path, {})["tokens"] = tokens
    return layers


def from_authors(tensors: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Return prompts from the tensors of the authors' adapter files.

    Args:
        tensors: {"<attention path>.processor.to_q_lora.down.weight": (rank, in) or (out, rank)}.

    Raises:
        UserError: a name is not of that form.
    """
    lora: dict[str, Any] = {}
    for name, tensor in tensors.items():
        path, _, rest = name.partition(".processor.")
        projection, _, side = rest.removesuffix(".weight").partition("_lora.")
        if projection not in PROJECTIONS or side not in ("down", "up"):
            raise UserError(f"'{name}' is not the name of a LoRA tensor of the authors' code.")
        layer = lora.setdefault(path, {}).setdefault(projection, {})
        layer[side] = jnp.asarray(np.asarray(tensor, np.float32).T)
    return {"lora": lora}


def count_params(prompts: PromptTree) -> int:
    """Return how many numbers are trained."""
    return sum(leaf.size for leaf in jax.tree.leaves(prompts))


def describe(prompts: PromptTree) -> list[str]:
    """Return each kind of prompts in words, with its size."""
    parts = []
    if lora := prompts.get("lora"):
        ranks = {update["down"].shape[1] for layer in lora.values() for update in layer.values()}
        parts.append(f"LoRA of rank {', '.join(map(str, sorted(ranks)))}")
    if tokens := prompts.get("tokens"):
        parts.append(f"{len(next(iter(tokens.values()))['key'])} tokens a layer")
    if weights := prompts.get("weights"):
        parts.append(f"weights of {', '.join(sorted(weights))}")
    return parts
