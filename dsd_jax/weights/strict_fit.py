"""Fit the tensors in files strictly to the params that a config asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsd_jax.io.terminal import printable
from dsd_jax.models.components import Component
from dsd_jax.models.params import (
    Path,
    canonical_name,
    canonical_name_in_file,
    flatten,
    flax_axes,
    is_attention_projection,
    torch_axes,
)
from dsd_jax.tensor_files.stored_tensor import FLOATING, StoredTensor

_MAX_LETTERS = 300  # of a problem; a file's names may be of any length
_SHOWN = 8  # problems of one kind and component that are written out


@dataclass(frozen=True)
class Leaf:
    """A parameter: its path and shape in the params, and the tensor in a file that holds it."""

    path: Path
    shape: tuple[int, ...]
    stored: StoredTensor

    def read(self, dtype: np.dtype) -> np.ndarray:
        """Return the parameter in our layout and in `dtype`, as a copy in C order."""
        array = self.stored.read()
        if self.stored.flax:
            array = array.reshape(self.shape)
        else:
            axes = torch_axes(self.path, len(self.shape))
            array = array.reshape([self.shape[axis] for axis in axes])
            array = array.transpose(flax_axes(self.path, len(self.shape)))
        with np.errstate(over="ignore"):  # the caller looks for infinities
            return array.astype(dtype, order="C")


def fit(
    component: Component, abstract: Mapping[str, Any], stored: Iterable[StoredTensor]
) -> tuple[list[Leaf], list[str]]:
    """Find every parameter among the tensors in files, by name and shape.

    Args:
        component: the component, whose names are expected.
        abstract: its params as shapes.
        stored: the tensors of its files.

    Returns:
        The leaves that fit, in the params' order; and what does not fit, as lines that begin with
        `-` (missing), `+` (extra) or `~` (of another shape or type), empty where all is well.
    """
    by_name: dict[str, StoredTensor] = {}
    extra = []
    for tensor in stored:
        name = canonical_name_in_file(tensor.name, tensor.flax, component)
        if name in by_name:
            extra.append(f"  + {tensor.name} (a second {by_name[name].name})")
        elif name is not None:
            by_name[name] = tensor
    flax = any(tensor.flax for tensor in by_name.values())
    leaves, missing, wrong = [], [], []
    for path, parameter in flatten(abstract).items():
        name = canonical_name(path)
        shape = _shape_in_file(path, parameter.shape, flax)
        tensor = by_name.pop(name, None)
        if tensor is None:
            missing.append(f"  - {'/'.join(path) if flax else name} {shape}")
        elif tensor.shape not in _accepted_shapes(name, shape, flax):
            wrong.append(f"  ~ {tensor.name} is {tensor.shape}, expected {shape}")
        elif tensor.dtype not in FLOATING:
            wrong.append(
                f"  ~ {tensor.name} is {tensor.dtype}, expected one of {', '.join(FLOATING)}"
            )
        else:
            leaves.append(Leaf(path, parameter.shape, tensor))
    extra = [f"  + {tensor.name} {tensor.shape}" for tensor in by_name.values()] + extra
    return leaves, listed(component.folder, missing, extra, wrong)


def _shape_in_file(path: Path, shape: tuple[int, ...], flax: bool) -> tuple[int, ...]:
    return shape if flax else tuple(shape[axis] for axis in torch_axes(path, len(shape)))


def _accepted_shapes(name: str, shape: tuple[int, ...], flax: bool) -> list[tuple[int, ...]]:
    """Return `shape`, and for an old VAE's attention that of the equivalent 1x1 convolution."""
    if not (is_attention_projection(name) and len(shape) == 2):
        return [shape]
    return [shape, (1, 1, *shape) if flax else (*shape, 1, 1)]


def listed(heading: str, *problems: list[str]) -> list[str]:
    """Return a heading with counts, and the first lines of what is missing, extra and wrong."""
    if not any(problems):
        return []
    kinds = ("missing", "extra", "of another shape or type")
    counts = [f"{len(lines)} {kind}" for lines, kind in zip(problems, kinds, strict=True) if lines]
    place = "" if heading == "." else f"{heading}: "
    shown = [f"{place}{', '.join(counts)}"]
    for lines in problems:
        shown += [printable(line[:_MAX_LETTERS]) for line in lines[:_SHOWN]]
        if len(lines) > _SHOWN:
            shown.append(f"  {lines[0].strip()[0]} ... and {len(lines) - _SHOWN} more")
    return shown
