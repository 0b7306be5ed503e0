"""Prompts of the kind "lora" from wherever they are: an adapter of PyTorch, or a prompts folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from etils import epath

from dsd_jax.conversion.adapter import to_prompts
from dsd_jax.conversion.adapter_files import read_adapter
from dsd_jax.conversion.adapter_fit import check_adapter
from dsd_jax.conversion.source import Source
from dsd_jax.errors import UserError
from dsd_jax.models.components import UNET
from dsd_jax.models.published_networks import UNETS
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts.prompt_checks import check_prompts
from dsd_jax.prompts.prompt_files import read_any_prompts, read_metadata
from dsd_jax.prompts.prompt_params import attention_shapes
from dsd_jax.weights.component_configs import read_config
from dsd_jax.weights.model_folder import find


def read_lora(source: Source, model: str | None = None) -> dict[str, Any]:
    """The prompts at `source`, "lora" among them, with the scale of adapters folded in.

    Args:
        source: an adapter or prompts.
        model: as for `dsd_jax.load`; if given, every tensor must fit its UNet.

    Raises:
        UserError: there is no LoRA, or it is damaged, of other layers, or of another model.
    """
    config = unet_config(model) if model else None
    if source.kind == "adapter":
        adapter = read_adapter(source.path)
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
    """Return what prompts without LoRA hold, and why."""
    if prompts:
        return f"no LoRA but {', '.join(sorted(prompts))}, which has no form outside dsd_jax"
    if read_metadata(folder).kept_step == 0:
        return "no LoRA: what was learned gained too little on held-out shots, so it was refused"
    return "no LoRA and nothing else"


def unet_config(model: str) -> UNetConfig:
    """Of a published model without a look at the Hub."""
    if model in UNETS and not Path(model).is_dir():
        return UNetConfig.from_json(UNETS[model])
    return read_config(find(model), UNET)


def count(prompts: Mapping[str, Any]) -> int:
    """How many tensors there are."""
    return len(jax.tree.leaves(prompts))


def ranks(prompts: Mapping[str, Any]) -> str:
    """The ranks of all updates, usually one, in words."""
    found = {
        update["down"].shape[1]
        for projections in prompts["lora"].values()
        for update in projections.values()
    }
    return " and ".join(map(str, sorted(found)))
