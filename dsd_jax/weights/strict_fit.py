"""Strictly fits the tensors in files to the tree of parameters that a config asks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsd_jax.io.terminal import printable
from dsd_jax.models.components import Component
from dsd_jax.models.tensor_names import (
    Path,
    canonical_name,
    canonical_name_in_file,
    flatten,
    flax_axes,
    is_attention_projection,
    torch_axes,
)
from dsd_jax.tensor_files.stored_tensor import FLOATING, Stored

_LONGEST = 300  # characters of a problem; names are as long as somebody makes them
_SHOWN = 8  # problems of one sort and place that are written out


@dataclass(frozen=True)
class Leaf:
    """One parameter: where it belongs in the tree, its shape there, and where it is stored."""

    path: Path
    shape: tuple[int, ...]
    stored: Stored

    def read(self, dtype: np.dtype) -> np.ndarray:
        """The parameter in the tree's layout and `dtype`, a copy of its own in C order."""
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
    component: Component, abstract: Mapping[str, Any], stored: Iterable[Stored]
) -> tuple[list[Leaf], list[str]]:
    """Finds every parameter of the tree `abstract` among the `stored` tensors, by name and shape.

    Returns:
        The leaves that fit, in the tree's order; and what does not fit, as lines that begin with
        `-` (missing), `+` (extra) or `~` (of another shape or type), empty where all is well.
    """
    found: dict[str, Stored] = {}
    extra = []
    for tensor in stored:
        name = canonical_name_in_file(tensor.name, tensor.flax, component)
        if name in found:
            extra.append(f"  + {tensor.name} (a second {found[name].name})")
        elif name is not None:
            found[name] = tensor
    flax = any(tensor.flax for tensor in found.values())
    leaves, missing, wrong = [], [], []
    for path, parameter in flatten(abstract).items():
        name = canonical_name(path)
        shape = _shape_in_file(path, parameter.shape, flax)
        tensor = found.pop(name, None)
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
    extra = [f"  + {tensor.name} {tensor.shape}" for tensor in found.values()] + extra
    return leaves, listed(component.folder, missing, extra, wrong)


def _shape_in_file(path: Path, shape: tuple[int, ...], flax: bool) -> tuple[int, ...]:
    return shape if flax else tuple(shape[axis] for axis in torch_axes(path, len(shape)))


def _accepted_shapes(name: str, shape: tuple[int, ...], flax: bool) -> list[tuple[int, ...]]:
    """`shape`; in an attention of an old VAE also that of the equivalent 1x1 convolution."""
    if not (is_attention_projection(name) and len(shape) == 2):
        return [shape]
    return [shape, (1, 1, *shape) if flax else (*shape, 1, 1)]


def listed(heading: str, *problems: list[str]) -> list[str]:
    """A heading with counts and the first few lines of what is missing, extra, and wrong."""
    if not any(problems):
        return []
    sorts = ("missing", "extra", "of another shape or type")
    counts = [f"{len(lines)} {sort}" for lines, sort in zip(problems, sorts, strict=True) if lines]
    place = "" if heading == "." else f"{heading}: "
    shown = [f"{place}{', '.join(counts)}"]
    for lines in problems:
        shown += [printable(line[:_LONGEST]) for line in lines[:_SHOWN]]
        if len(lines) > _SHOWN:
            shown.append(f"  {lines[0].strip()[0]} ... and {len(lines) - _SHOWN} more")
    return shown
