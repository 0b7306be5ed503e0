"""Checkpoints of any size: real headers, and numbers that need no memory to make."""

import json
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from dsd_jax.models.components import Component
from dsd_jax.models.params import canonical_name, flatten, torch_axes

Shapes = dict[str, tuple[int, ...]]


def torch_shapes(component: Component, config: dict) -> Shapes:
    """The names and shapes of a PyTorch checkpoint for the component's `config.json`."""
    tree = component.abstract_params(component.read_config(config))
    return {
        canonical_name(path): tuple(leaf.shape[axis] for axis in torch_axes(path, leaf.ndim))
        for path, leaf in flatten(tree).items()
    }


def write_zeros(file: Path, shapes: Shapes) -> None:
    """Writes float16 zeros as a hole in the file, which takes no space on disk."""
    with file.open("wb") as stream:
        stream.write(_header(shapes))
        stream.truncate(stream.tell() + 2 * sum(prod(shape) for shape in shapes.values()))


def write_random(file: Path, shapes: Shapes, seed: int) -> None:
    """Writes float16 weights as for a fresh network: activations neither vanish nor explode."""
    block = np.random.default_rng(seed).standard_normal(1 << 22, dtype=np.float32)
    with file.open("wb") as stream:
        stream.write(_header(shapes))
        for name, shape in shapes.items():
            for piece in _numbers(name, shape, block):
                stream.write(piece.tobytes())


def _numbers(name: str, shape: tuple[int, ...], block: np.ndarray) -> Iterator[np.ndarray]:
    count = prod(shape)
    if len(shape) == 1:
        yield np.full(count, float("norm" in name and name.endswith("weight")), np.float16)
        return
    scaled = (block / np.sqrt(prod(shape[1:]))).astype(np.float16)
    for begin in range(0, count, block.size):
        yield scaled[: count - begin]


def _header(shapes: Shapes) -> bytes:
    entries, at = {}, 0
    for name, shape in shapes.items():
        end = at + 2 * prod(shape)
        entries[name] = {"dtype": "F16", "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries).encode()
    return len(text).to_bytes(8, "little") + text
