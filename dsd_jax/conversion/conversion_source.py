"""Find what a user wants converted (prompts, an adapter or a model) and read its LoRA."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etils import epath

from dsd_jax.conversion import adapter_files
from dsd_jax.conversion.adapter import check_adapter, to_prompts
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder
from dsd_jax.models.components import UNET
from dsd_jax.models.published_networks import UNETS
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts.prompt_checks import check_prompts
from dsd_jax.prompts.prompt_files import holds_prompts, read_any_prompts, read_metadata
from dsd_jax.prompts.prompt_params import attention_shapes
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import find, local_path

EXPECTED = (
    "a prompts folder that train wrote, an adapter (a .safetensors or .bin file, or its folder) or "
    'a model ("tiny", a folder in the Hugging Face layout, or "org/name" on the Hub)'
)


@dataclass(frozen=True)
class Source:
    """The source of a conversion: the folder of prompts or of a model, or an adapter's file."""

    kind: Literal["prompts", "adapter", "model"]
    path: Path


def find_source(where: str | os.PathLike) -> Source:
    """Return the source at `where`; raises `UserError` for anything that we don't convert."""
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
    shown = ", ".join(names[:8]) or "nothing"
    raise UserError(f"{where} holds {shown}; expected {EXPECTED}.")


def _checked(file: Path) -> Path:
    """Return an adapter's file; refuse parts of prompts and models."""
    if file.name == "prompts.safetensors":
        raise UserError(f"{file} is a part of prompts; give their folder, {file.parent}.")
    if file.suffix == ".msgpack":
        raise UserError(
            f"{file} is a part of a model; give the model's folder, which has unet/ and others."
        )
    return file


def read_lora(source: Source, model: str | None = None) -> dict[str, Any]:
    """Return the prompts at `source`, "lora" among them, with the scale of adapters folded in.

    Args:
        source: an adapter or prompts.
        model: a model as for `dsd_jax.load`, whose UNet every tensor must fit.

    Raises:
        UserError: there is no LoRA, or it is damaged, of other layers, or of another model.
    """
    config = unet_config(model) if model else None
    if source.kind == "adapter":
        adapter = adapter_files.read_adapter(source.path)
        check_adapter(adapter, config and attention_shapes(config), model or "")
        return to_prompts(adapter)
    prompts = read_any_prompts(epath.Path(source.path))
    check_prompts(prompts, config)
    if not prompts.get("lora"):
        raise UserError(
            f"{source.path} has {_instead_of_lora(source.path, prompts)}; give prompts of a recipe "
            "that learns lora and whose report does not say that it was refused."
        )
    return prompts


def _instead_of_lora(folder: Path, prompts: Mapping[str, Any]) -> str:
    """Return a clause that says what prompts without LoRA hold instead, and why."""
    if prompts:
        return f"no LoRA but {', '.join(sorted(prompts))}, which has no form outside dsd_jax"
    if read_metadata(folder).kept_step == 0:
        return "no LoRA: what was learned gained too little on held-out shots, so it was refused"
    return "no LoRA and nothing else"


def unet_config(model: str) -> UNetConfig:
    """Return the config of a model's UNet; for published ones without asking the Hub."""
    if model in UNETS and not Path(model).is_dir():
        return UNetConfig.from_json(UNETS[model])
    return read_config(find(model), UNET)


def describe_lora(lora: Mapping[str, Any]) -> str:
    """Return how many tensors there are, and their ranks, usually one."""
    updates = [update for projections in lora.values() for update in projections.values()]
    ranks = sorted({update["down"].shape[1] for update in updates})
    return f"{sum(map(len, updates))} tensors of rank {' and '.join(map(str, ranks))}"
