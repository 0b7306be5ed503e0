"""What tensors are called: the Flax tree's paths and PyTorch's names, one table for both ways.

A tensor's *canonical* name is the one that today's PyTorch diffusers gives it, except that the
text encoders' keep the prefix `text_model.`, which every version of transformers reads. Both a
path of our tree and a name in any file lead to it, so nothing else need be compared.
"""

import re
from collections.abc import Mapping
from typing import Any

from dsd_jax.models.components import Component

Path = tuple[str, ...]

# Attention's projections before diffusers 0.15, in most VAEs on the Hub and in the Flax VAE.
_RENAMED = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_LEAVES = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
_PREFIX = "text_model."
_WITHOUT_PREFIX = ("embeddings.", "encoder.", "final_layer_norm.")
# Token positions (a constant that transformers 4.30 and older stored), and whole parts that some
# files carry along and no score needs.
_IGNORED = re.compile(r"(.*\.)?position_ids$|(safety_checker|feature_extractor|model_ema|ema)\.")
# The time embedding's layers are called linear_1 and linear_2 in PyTorch too.
_LIST_ENTRY = re.compile(r"^(?!linear_)(.+)_(\d+)$")


def canonical_name(path: Path) -> str:
    """The canonical name of a leaf of our tree, or of a path in a Flax file."""
    *modules, leaf = path
    modules = [_LIST_ENTRY.sub(r"\1.\2", module) for module in modules]
    if modules and modules[-1] in _RENAMED:
        modules[-1] = _RENAMED[modules[-1]]
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def canonical_name_in_file(name: str, flax: bool, component: Component) -> str | None:
    """The canonical name of what a file calls `name`, or None where it is to be ignored."""
    canonical = canonical_name(tuple(name.split("/" if flax else ".")))
    if component.tokenizer and canonical.startswith(_WITHOUT_PREFIX):
        canonical = _PREFIX + canonical
    return None if _IGNORED.match(canonical) else canonical


def is_attention_projection(canonical: str) -> bool:
    """Whether this is one of those that old VAEs hold as 1x1 convolutions."""
    return canonical.endswith(tuple(f".{new}.weight" for new in _RENAMED.values()))


def torch_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """The order in which PyTorch has our leaf's axes: convolutions HWIO -> OIHW, dense IO -> OI."""
    if path[-1] != "kernel":
        return tuple(range(ndim))
    return (3, 2, 0, 1) if ndim == 4 else (1, 0)


def flax_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """The inverse of `torch_axes`."""
    axes = torch_axes(path, ndim)
    return tuple(axes.index(axis) for axis in range(ndim))


def flatten(tree: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
    """Nested dicts -> {path: leaf}."""
    leaves = {}
    for name, node in tree.items():
        path = (*prefix, name)
        leaves |= flatten(node, path) if isinstance(node, Mapping) else {path: node}
    return leaves


def unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """{path: leaf} -> nested dicts."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = tree
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return tree
