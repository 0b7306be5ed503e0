"""Read and write adapters: pickles of the authors, safetensors of diffusers, PEFT and kohya."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath

from dsd_jax.conversion.adapter import Adapter, make_adapter
from dsd_jax.conversion.adapter_names import TensorName, is_peft
from dsd_jax.conversion.peft_config import PeftConfig, parse_peft_config
from dsd_jax.io.local_files import json_object, read_json
from dsd_jax.io.storage import storage_errors, write_file
from dsd_jax.io.terminal import tell
from dsd_jax.tensor_files import pickle_file, safetensors_file

AUTHORS = "pytorch_model.bin"
WRITTEN = "pytorch_lora_weights.safetensors"
# File names of diffusers, PEFT and the authors, in order of preference.
NAMES = (
    WRITTEN,
    "adapter_model.safetensors",
    "pytorch_lora_weights.bin",
    "adapter_model.bin",
    AUTHORS,
)
_CONFIG = "adapter_config.json"  # PEFT's, beside adapter_model.safetensors
_DIFFUSERS = "pytorch_lora_weights."  # a file that diffusers wrote, with a scale of its own
_METADATA = "lora_adapter_metadata"  # the same within diffusers' files


def read_adapter(file: Path) -> Adapter:
    """Read an adapter of any spelling.

    Raises:
        UserError: the file is damaged, of another kind, or of layers that prompts don't reach.
    """
    named: Mapping[str, Any]
    if file.suffix != ".safetensors":
        named, config = pickle_file.read(file), None
    else:
        named, metadata = safetensors_file.read_tensors(file)
        config = _config_within(file, metadata)
    if config is None and any(map(is_peft, named)) and not file.name.startswith(_DIFFUSERS):
        config = _config_beside(file, named)
    return make_adapter(str(file), named, config)


def _config_beside(file: Path, named: Mapping[str, Any]) -> PeftConfig | None:
    """Return the config that PEFT writes into an adapter's folder, whatever its name."""
    beside = file.with_name(_CONFIG)
    if os.path.lexists(beside):
        return parse_peft_config(read_json(beside), str(beside))
    # Names that start so are by diffusers, whose scale is 1.
    if not all(name.startswith("unet.") for name in named):
        tell(
            "warning",
            f"{file} has the names of PEFT but no {_CONFIG} beside it, which tells the scale; it "
            "is taken as 1",
        )
    return None


def _config_within(file: Path, metadata: Mapping[str, str]) -> PeftConfig | None:
    """Return the UNet's `LoraConfig` in diffusers' metadata, perhaps under the prefix "unet."."""
    text = metadata.get(_METADATA)
    if text is None:
        return None
    where = f"{file}: its metadata {_METADATA}"
    config = json_object(text, where)
    return parse_peft_config({key.removeprefix("unet."): config[key] for key in config}, where)


def write_diffusers(folder: Path, lora: Mapping[str, Any]) -> None:
    """Write prompts of the kind "lora" as a file for `pipeline.load_lora_weights(folder)`.

    Its names are PEFT's under "unet."; each alpha is the rank, so the scale is 1.
    """
    from safetensors.numpy import save

    named = {name.diffusers: tensor for name, tensor in _tensors(lora).items()}
    _write(folder, WRITTEN, save(named, metadata={"format": "pt"}))


def write_authors(folder: Path, lora: Mapping[str, Any]) -> None:
    """Write prompts of the kind "lora" as the file that the authors' code saves and loads."""
    named = {name.authors: tensor for name, tensor in _tensors(lora).items()}
    _write(folder, AUTHORS, pickle_file.state_dict_bytes(named))


def _tensors(lora: Mapping[str, Any]) -> dict[TensorName, np.ndarray]:
    """Return tensors in PyTorch's layout: `down` (rank, in) and `up` (out, rank), float32."""
    return {
        TensorName(path, projection, part): np.array(update[part], np.float32).T.copy(order="C")
        for path, projections in lora.items()
        for projection, update in projections.items()
        for part in ("down", "up")
    }


def _write(folder: Path, name: str, content: bytes) -> None:
    with storage_errors(f"{folder} cannot be written", "name another folder"):
        folder.mkdir(parents=True, exist_ok=True)
    write_file(epath.Path(folder) / name, content)
