"""A model's folder in the other form: safetensors as PyTorch has them, or Flax msgpack.

Nothing is computed: every number keeps its type, and only one tensor at a time is in memory.
"""

import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dsd_jax.io.local_files import list_folder, open_regular_file, read_json, write_json
from dsd_jax.io.storage import storage_errors
from dsd_jax.models.components import UNET, Component, components
from dsd_jax.models.tensor_names import canonical_name, torch_axes
from dsd_jax.tensor_files import msgpack_file, safetensors_file
from dsd_jax.tensor_files.stored_tensor import FLOATING
from dsd_jax.weights.component_configs import read_config
from dsd_jax.weights.component_files import choose
from dsd_jax.weights.model_folder import subfolders
from dsd_jax.weights.model_loading import fitting
from dsd_jax.weights.strict_fit import Leaf

FORMS = ("safetensors", "msgpack")
_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".msgpack", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5")


@dataclass(frozen=True)
class Converted:
    """What was written: how many tensors, of which types, and parts of the pipeline left behind."""

    tensors: int
    dtypes: tuple[str, ...]
    left: tuple[str, ...]


class _Tensor:
    """A tensor of the new file, read and turned when NumPy asks for it."""

    def __init__(self, leaf: Leaf, form: str):
        self.leaf, self.dtype = leaf, FLOATING[leaf.stored.dtype]
        axes = range(len(leaf.shape))
        self.axes = tuple(axes) if form == "msgpack" else torch_axes(leaf.path, len(leaf.shape))
        self.shape = tuple(leaf.shape[axis] for axis in self.axes)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.ascontiguousarray(self.leaf.read(self.dtype).transpose(self.axes))


def form_of(folder: Path) -> str:
    """In which of the `FORMS` a model's UNet is."""
    part = folder / UNET.folder
    name = choose(list_folder(part), UNET, str(part))
    return "safetensors" if ".safetensors" in name else "msgpack"


def convert_model(source: Path, target: Path, form: str) -> Converted:
    """Writes the model of the folder `source` to the folder `target`, all of it or nothing.

    Args:
        source: what `weights.folder.find` found.
        target: a folder that is empty or not there yet.
        form: of `FORMS`.

    Raises:
        UserError: the model's files are not all there, are damaged or do not fit its configs; or
            there is no room.
    """
    ours = components(subfolders(source))
    leaves = fitting(source, {part: read_config(source, part) for part in ours})
    with storage_errors(f"{target} cannot be written"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=target.parent) as name:
            new = Path(name) / "model"
            left = _copy_small(source, new, form, {part.folder for part in ours})
            for component in ours:
                _write(new / component.folder, component, leaves[component.key], form)
            new.rename(target)
    stored = [leaf.stored for part in leaves.values() for leaf in part]
    return Converted(len(stored), tuple(sorted({one.dtype for one in stored})), tuple(left))


def _write(part: Path, component: Component, leaves: Iterable[Leaf], form: str) -> None:
    if form == "msgpack":
        tree = {"/".join(leaf.path): _Tensor(leaf, form) for leaf in leaves}
        msgpack_file.write(part / f"{component.flax_stem}.msgpack", tree)
    else:
        tensors = {canonical_name(leaf.path): _Tensor(leaf, form) for leaf in leaves}
        safetensors_file.write(part / f"{component.torch_stem}.safetensors", tensors)


def _copy_small(source: Path, new: Path, form: str, networks: set[str]) -> list[str]:
    """Copies configs and tokenizers of all but the networks' weights; names other parts that have
    weights of their own, left behind.

    Such a part, as the safety checker, is taken out of `model_index.json`, or no pipeline would
    load.
    """
    index = read_json(source / _INDEX) if _INDEX in list_folder(source) else {}
    parts = {name for name, value in index.items() if isinstance(value, list)}
    parts |= networks | {"tokenizer", "scheduler"}
    folders = [source / part for part in sorted(parts) if (source / part).is_dir()]
    left = [f.name for f in folders if f.name not in networks and any(map(_is_weights, _in(f)))]
    for folder in [source, *(folder for folder in folders if folder.name not in left)]:
        copied = new if folder is source else new / folder.name
        copied.mkdir()
        for file in _in(folder):
            if not _is_weights(file):
                with open_regular_file(file) as old, (copied / file.name).open("xb") as new_file:
                    shutil.copyfileobj(old, new_file)
    if index:
        write_json(new / _INDEX, index | {part: [None, None] for part in left})
    if form == "safetensors":
        _drop_flax(new)
    return left


def _in(folder: Path) -> list[Path]:
    """All in a folder but folders and what is hidden; links to nothing and the like too, which
    nobody should find missing from the copy.
    """
    names = [name for name in list_folder(folder) if not name.startswith(".")]
    return [folder / name for name in names if not (folder / name).is_dir()]


def _is_weights(file: Path) -> bool:
    """Whether it holds tensors, or is the index of such files."""
    return file.suffix in _WEIGHTS or ".index." in file.name


def _drop_flax(folder: Path) -> None:
    """Takes "Flax" off the names of classes, which PyTorch's pipelines don't know."""
    for pattern in (_INDEX, "*/config.json", "scheduler/scheduler_config.json"):
        for file in folder.glob(pattern):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace('"Flax', '"'), encoding="utf-8")
