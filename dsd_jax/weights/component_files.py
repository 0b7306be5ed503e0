"""Which files of a component's folder hold its tensors, and what lies in them."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder, read_json
from dsd_jax.io.terminal import printable
from dsd_jax.models.components import Component
from dsd_jax.tensor_files import msgpack_file, safetensors_file
from dsd_jax.tensor_files.stored_tensor import Stored

# Suffixes of published files, in order of preference: "" is what diffusers loads unasked.
_VARIANTS = ("", ".fp32", ".fp16", ".bf16", ".ema", ".non_ema")


def choose(names: Iterable[str], component: Component, folder: str) -> str:
    """The one of the file `names` to load: safetensors before msgpack, plain before variants.

    The result is a file of tensors or the index of several. `UserError`, which calls the place
    `folder`, where there is none.
    """
    names = set(names)
    stem = component.torch_stem
    wanted = [f"{stem}{variant}.safetensors" for variant in _VARIANTS]
    wanted += [f"{stem}.safetensors.index{variant}.json" for variant in _VARIANTS]
    wanted += [f"{component.flax_stem}.msgpack", f"{component.flax_stem}.msgpack.index.json"]
    for name in wanted:
        if name in names:
            return name
    if pickles := sorted(name for name in names if name.endswith((".bin", ".pt", ".ckpt", ".pth"))):
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
    """Those of the file `names` that look like shards of `index`, for fetching them all."""
    stem, suffix, variant = re.fullmatch(
        r"(.+)\.(safetensors|msgpack)\.index(\..+)?\.json", index
    ).groups()
    stem, variant = re.escape(stem), re.escape(variant or "")
    number = r"-\d+-of-\d+"  # diffusers puts the variant before it, or after it of late
    shard = re.compile(rf"({stem}{variant}{number}|{stem}{number}{variant})\.{suffix}")
    return sorted(name for name in names if shard.fullmatch(name))


def is_index(name: str) -> bool:
    """Whether `name` is that of an index of shards."""
    return name.endswith(".json")


def read_headers(folder: Path, component: Component) -> list[Stored]:
    """All tensors of the component in `folder`, of all its shards; nothing but headers is read."""
    names = list_folder(folder)
    name = choose(names, component, str(folder))
    read = _reader(name)
    if not is_index(name):
        return list(read(folder / name).values())
    table = read_json(folder / name).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(shard, str) for shard in table.values()):
        raise UserError(f"{folder / name} has no table 'weight_map' from tensors to files.")
    tensors = []
    for shard in sorted(set(table.values())):
        if shard not in names:
            raise UserError(
                f"{folder / printable(shard[:200])} is missing, though {name} names it; fetch it "
                "again."
            )
        tensors += read(folder / shard).values()
    return tensors


def _reader(name: str) -> Callable[[Path], dict[str, Stored]]:
    return safetensors_file.read_header if ".safetensors" in name else msgpack_file.read_header
