"""A component's files in its folder: its config, and which of the others hold its tensors."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import Field

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder, read_json
from dsd_jax.io.terminal import printable
from dsd_jax.io.validation import List, parse
from dsd_jax.models.components import Component
from dsd_jax.models.json_config import REMEDY, ConfigFile
from dsd_jax.tensor_files import msgpack_file, safetensors_file
from dsd_jax.tensor_files.stored_tensor import StoredTensor

# Suffixes of published files, in order of preference: "" is what diffusers loads unasked.
_VARIANTS = ("", ".fp32", ".fp16", ".bf16", ".ema", ".non_ema")
_PICKLES = (".bin", ".pt", ".ckpt", ".pth")


class _ClassNames(ConfigFile):
    """The class that a `config.json` is of: diffusers and transformers say it differently."""

    class_name: str | None = Field(None, alias="_class_name")
    architectures: List[str] | None = None


def read_config(model: Path, component: Component) -> Any:
    """Return the config of one component of the model in the folder `model`.

    Raises:
        UserError: its file is missing, damaged, of another class, or describes a network that is
            too large or that we don't build.
    """
    file = model / component.folder / "config.json"
    json = read_json(file)
    names = parse(_ClassNames, json, str(file), REMEDY)
    name = names.class_name or next(iter(names.architectures or ()), None)
    if name is not None and name.removeprefix("Flax") not in component.classes:
        raise UserError(
            f"{file} describes the class {name}, expected {component.classes[0]} of "
            f"{component.model}."
        )
    try:
        return component.read_config(json)
    except UserError as error:
        raise UserError(f"{model}: {error}") from error


def choose(names: Iterable[str], component: Component, folder: str) -> str:
    """Return which of the files `names` to load: safetensors first, plain before variants.

    Args:
        names: all files of the folder.
        component: the component whose folder it is.
        folder: the folder's name in messages.

    Returns:
        The name of a file of tensors, or of the index of several.

    Raises:
        UserError: there is none.
    """
    names = set(names)
    stem = component.torch_stem
    wanted = [f"{stem}{variant}.safetensors" for variant in _VARIANTS]
    wanted += [f"{stem}.safetensors.index{variant}.json" for variant in _VARIANTS]
    wanted += [f"{component.flax_stem}.msgpack", f"{component.flax_stem}.msgpack.index.json"]
    for name in wanted:
        if name in names:
            return name
    if pickles := sorted(name for name in names if name.endswith(_PICKLES)):
        raise UserError(
            f"{folder} holds its weights only as a PyTorch pickle ({pickles[0]}), which could run "
            "code and is not read; convert it, for instance with diffusers' "
            "save_pretrained(..., safe_serialization=True)."
        )
    raise UserError(
        f"{folder} holds no weights: expected {wanted[0]} or {component.flax_stem}.msgpack, "
        f"found {', '.join(sorted(names)) or 'nothing'}."
    )


def shards(names: Iterable[str], index: str) -> list[str]:
    """Return those of the files `names` that look like shards of `index`, to fetch them all."""
    match = re.fullmatch(r"(.+)\.(safetensors|msgpack)\.index(\..+)?\.json", index)
    if match is None:
        raise ValueError(f"{index} is no index")
    stem, suffix, variant = re.escape(match[1]), match[2], re.escape(match[3] or "")
    number = r"-\d+-of-\d+"  # diffusers puts the variant before it, or after it of late
    shard = re.compile(rf"({stem}{variant}{number}|{stem}{number}{variant})\.{suffix}")
    return sorted(name for name in names if shard.fullmatch(name))


def is_index(name: str) -> bool:
    """Return whether a file of that name is an index of shards."""
    return name.endswith(".json")


def read_headers(folder: Path, component: Component) -> list[StoredTensor]:
    """Return all tensors of the component in `folder`, unread, from all its shards.

    Raises:
        UserError: there are none, or a file is missing or damaged.
    """
    names = list_folder(folder)
    name = choose(names, component, str(folder))
    file_format = safetensors_file if ".safetensors" in name else msgpack_file
    if not is_index(name):
        return list(file_format.read_header(folder / name).values())
    files = read_json(folder / name).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(shard, str) for shard in files.values()):
        raise UserError(f"{folder / name} has no table 'weight_map' from tensors to files.")
    tensors = []
    for shard in sorted(set(files.values())):
        if shard not in names:
            raise UserError(
                f"{folder / printable(shard[:200])} is missing, though {name} names it; fetch it "
                "again."
            )
        tensors += file_format.read_header(folder / shard).values()
    return tensors
