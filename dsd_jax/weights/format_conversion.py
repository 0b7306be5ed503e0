"""Convert a model's folder to safetensors as PyTorch has them, or to Flax msgpack.

Nothing is computed and every number keeps its type. One component at a time is in memory, and
about 3.5 times its size for msgpack, which Flax serialises there.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsd_jax.io.local_files import list_folder, open_regular_file, read_json, write_json
from dsd_jax.io.storage import storage_errors
from dsd_jax.models.components import UNET, components
from dsd_jax.tensor_files.stored_tensor import FLOATING
from dsd_jax.weights.component_files import choose, read_config
from dsd_jax.weights.model_folder import subfolders
from dsd_jax.weights.model_loading import fitting
from dsd_jax.weights.model_saving import write_leaves

Format = Literal["safetensors", "msgpack"]
_INDEX = "model_index.json"
_WEIGHTS = (".safetensors", ".msgpack", ".bin", ".pt", ".pth", ".ckpt", ".onnx", ".h5")


@dataclass(frozen=True)
class Converted:
    """A report: number of tensors written, their types, and the pipeline's parts left out."""

    tensors: int
    dtypes: tuple[str, ...]
    left_out: tuple[str, ...]


def format_of(folder: Path) -> Format:
    """Return the format of a model's UNet."""
    part = folder / UNET.folder
    name = choose(list_folder(part), UNET, str(part))
    return "safetensors" if ".safetensors" in name else "msgpack"


def convert_model(source: Path, target: Path, form: Format) -> Converted:
    """Write the model of the folder `source` to the folder `target`, all of it or nothing.

    Args:
        source: a folder that `model_folder.find` returned.
        target: a folder that is empty or does not exist yet.
        form: format of the new files.

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
            left_out = _copy_small(source, new, form, {part.folder for part in ours})
            for component in ours:
                arrays = (
                    (leaf.path, leaf.read(FLOATING[leaf.stored.dtype]))
                    for leaf in leaves[component.key]
                )
                write_leaves(new / component.folder, component, arrays, form)
            new.rename(target)
    dtypes = [leaf.stored.dtype for part in leaves.values() for leaf in part]
    return Converted(len(dtypes), tuple(sorted(set(dtypes))), tuple(left_out))


def _copy_small(source: Path, new: Path, form: Format, networks: set[str]) -> list[str]:
    """Copy all small files, such as configs and tokenizers.

    Other parts with weights of their own, as the safety checker, are left out of the copy and of
    `model_index.json`, or no pipeline would load.

    Returns:
        The names of the parts left out.
    """
    index = read_json(source / _INDEX) if _INDEX in list_folder(source) else {}
    parts = {name for name, value in index.items() if isinstance(value, list)}
    parts |= networks | {"tokenizer", "scheduler"}
    folders = [source / part for part in sorted(parts) if (source / part).is_dir()]
    others = [folder for folder in folders if folder.name not in networks]
    left_out = [folder.name for folder in others if any(map(_is_weights, _files(folder)))]
    for folder in [source, *(folder for folder in folders if folder.name not in left_out)]:
        copied = new if folder is source else new / folder.name
        copied.mkdir()
        for file in _files(folder):
            if not _is_weights(file):
                with open_regular_file(file) as old, (copied / file.name).open("xb") as new_file:
                    shutil.copyfileobj(old, new_file)
    if index:
        write_json(new / _INDEX, index | {part: [None, None] for part in left_out})
    if form == "safetensors":
        _drop_flax(new)
    return left_out


def _files(folder: Path) -> list[Path]:
    """Return all but folders and hidden files; broken links too, so that copying them fails."""
    names = [name for name in list_folder(folder) if not name.startswith(".")]
    return [folder / name for name in names if not (folder / name).is_dir()]


def _is_weights(file: Path) -> bool:
    """Return whether a file holds tensors, or is the index of such files."""
    return file.suffix in _WEIGHTS or ".index." in file.name


def _drop_flax(folder: Path) -> None:
    """Remove "Flax" from the names of classes, which PyTorch's pipelines don't know."""
    for pattern in (_INDEX, "*/config.json", "scheduler/scheduler_config.json"):
        for file in folder.glob(pattern):
            text = file.read_text(encoding="utf-8")
            file.write_text(text.replace('"Flax', '"'), encoding="utf-8")
