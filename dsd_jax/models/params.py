"""Trees of params: names and layouts of their leaves in PyTorch's and Flax's files, and a digest.

A tensor's *canonical* name is the one that today's PyTorch diffusers gives it, except that the
text encoders' keep the prefix `text_model.`, which every version of transformers reads. Both a
path in our tree and a name in any file lead to it, so nothing else need be compared.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

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
    """Return the canonical name of a leaf of our tree, or of a path in a Flax file."""
    *modules, leaf = path
    modules = [_LIST_ENTRY.sub(r"\1.\2", module) for module in modules]
    if modules and modules[-1] in _RENAMED:
        modules[-1] = _RENAMED[modules[-1]]
    return ".".join([*modules, _LEAVES.get(leaf, leaf)])


def canonical_name_in_file(name: str, flax: bool, component: Component) -> str | None:
    """Return the canonical name of a tensor that a file calls `name`; None if it is ignored."""
    canonical = canonical_name(tuple(name.split("/" if flax else ".")))
    if component.tokenizer and canonical.startswith(_WITHOUT_PREFIX):
        canonical = _PREFIX + canonical
    return None if _IGNORED.match(canonical) else canonical


def is_attention_projection(canonical: str) -> bool:
    """Return whether old VAEs hold this tensor as a 1x1 convolution."""
    return canonical.endswith(tuple(f".{new}.weight" for new in _RENAMED.values()))


def torch_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Return PyTorch's order of our leaf's axes: convolutions HWIO -> OIHW, dense IO -> OI."""
    if path[-1] != "kernel":
        return tuple(range(ndim))
    return (3, 2, 0, 1) if ndim == 4 else (1, 0)


def flax_axes(path: Path, ndim: int) -> tuple[int, ...]:
    """Return the inverse permutation of `torch_axes`."""
    axes = torch_axes(path, ndim)
    return tuple(axes.index(axis) for axis in range(ndim))


def flatten(params: Mapping[str, Any], prefix: Path = ()) -> dict[Path, Any]:
    """Convert nested dicts to {path: leaf}."""
    leaves = {}
    for name, node in params.items():
        path = (*prefix, name)
        leaves |= flatten(node, path) if isinstance(node, Mapping) else {path: node}
    return leaves


def unflatten(leaves: Mapping[Path, Any]) -> dict[str, Any]:
    """Convert {path: leaf} to nested dicts."""
    params: dict[str, Any] = {}
    for path, leaf in leaves.items():
        node = params
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = leaf
    return params


def weights_digest(params: Mapping[str, Any], dtype: np.dtype | None = None) -> str:
    """Return the SHA-256 of params: names, types, shapes and bytes of all leaves.

    The same weights have the same digest whatever file they came from, and another in another
    dtype. It takes about a second per gigabyte.

    Args:
        params: nested dicts of arrays.
        dtype: type to convert the weights to first, as `load` would; by default as they are.

    Returns:
        64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten(params).items()):
        array = np.asarray(leaf)
        if dtype is not None and array.ndim:  # scalars are always float32
            array = array.astype(dtype)
        array = np.ascontiguousarray(array).reshape(array.shape)
        digest.update(f"{'/'.join(path)} {array.dtype.name} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
