"""Write prompts of the kind "lora" as the files that PyTorch reads: of diffusers, of the authors.

`conversion` reads such files, in every spelling in use.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from etils import epath

from dsd_jax.io.storage import storage_errors, write_file
from dsd_jax.tensor_files import pickle_file

AUTHORS = "pytorch_model.bin"
DIFFUSERS = "pytorch_lora_weights.safetensors"


class TensorName(NamedTuple):
    """A tensor's place in the UNet.

    Attributes:
        path: path of an attention layer.
        projection: `to_q`, `to_k`, `to_v` or `to_out`.
        part: `down`, `up` or, as kohya writes for each projection, `alpha`.
    """

    path: str
    projection: str
    part: str

    @property
    def module(self) -> str:
        """Return the projection's module path in diffusers."""
        return f"{self.path}.{self.projection}{'.0' if self.projection == 'to_out' else ''}"

    @property
    def authors(self) -> str:
        """Return its name in the authors' code."""
        return f"{self.path}.processor.{self.projection}_lora.{self.part}.weight"

    @property
    def diffusers(self) -> str:
        """Return its name in today's diffusers and PEFT."""
        return f"unet.{self.module}.lora_{'A' if self.part == 'down' else 'B'}.weight"


def write_diffusers(folder: Path, lora: Mapping[str, Any]) -> None:
    """Write prompts of the kind "lora" as a file for `pipeline.load_lora_weights(folder)`.

    Its names are PEFT's under "unet."; each alpha is the rank, so the scale is 1.
    """
    from safetensors.numpy import save

    named = {name.diffusers: tensor for name, tensor in _tensors(lora).items()}
    _write(folder, DIFFUSERS, save(named, metadata={"format": "pt"}))


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
