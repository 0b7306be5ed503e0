"""Read adapters: pickles of the authors, safetensors of diffusers, PEFT and kohya."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsd_jax.conversion.adapter import Adapter, make_adapter
from dsd_jax.conversion.adapter_names import is_peft
from dsd_jax.conversion.peft_config import PeftConfig, parse_peft_config
from dsd_jax.io.local_files import json_object, read_json
from dsd_jax.io.terminal import tell
from dsd_jax.prompts.lora_files import AUTHORS, DIFFUSERS
from dsd_jax.tensor_files import pickle_file, safetensors_file

# File names of diffusers, PEFT and the authors, in order of preference.
NAMES = (
    DIFFUSERS,
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
