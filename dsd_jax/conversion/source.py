"""What it is that a user wants converted: prompts, an adapter or a model."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dsd_jax.conversion import adapter_files
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder
from dsd_jax.models.components import UNET
from dsd_jax.prompts.prompt_files import holds_prompts
from dsd_jax.weights.model_folder import find, local_path

EXPECTED = (
    "a prompts folder that train wrote, an adapter (a .safetensors or .bin file, or its folder) or "
    'a model ("tiny", a folder in the Hugging Face layout, or "org/name" on the Hub)'
)


@dataclass(frozen=True)
class Source:
    """Its kind, and the folder of prompts or of a model, or the file of an adapter."""

    kind: Literal["prompts", "adapter", "model"]
    path: Path


def find_source(where: str | os.PathLike) -> Source:
    """Looks what is at `where`; `UserError` where that is nothing that we convert."""
    path = local_path(where)
    if path.is_symlink() and not path.exists() or path.exists() and not path.is_dir():
        return Source("adapter", _checked(path))
    if where == "" or not path.is_dir() and (path.is_absolute() or path.suffix):
        raise UserError(f"There is nothing at '{where}'; expected {EXPECTED}.")
    if not path.is_dir() or (path / UNET.folder).is_dir():
        return Source("model", find(where))
    if holds_prompts(path):
        return Source("prompts", path)
    names = list_folder(path)
    for name in adapter_files.NAMES:
        if name in names:
            return Source("adapter", path / name)
    others = [name for name in names if name.endswith(".safetensors")]
    if len(others) == 1:
        return Source("adapter", path / others[0])
    found = ", ".join(names[:8]) or "nothing"
    raise UserError(f"{where} holds {found}; expected {EXPECTED}.")


def _checked(file: Path) -> Path:
    """An adapter's file; weights of Flax and prompts are named by their folders."""
    if file.name == "prompts.safetensors":
        raise UserError(f"{file} is a part of prompts; give their folder, {file.parent}.")
    if file.suffix == ".msgpack":
        raise UserError(
            f"{file} is a part of a model; give the model's folder, which has unet/ and others."
        )
    return file
