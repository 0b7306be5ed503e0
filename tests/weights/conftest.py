"""A golden model to damage, and its tensors to move into other forms."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from flax import serialization, traverse_util
from safetensors.numpy import load_file, save_file

from dsd_jax.diffusion.pipeline import Model
from dsd_jax.models.params import weights_digest
from dsd_jax.weights.model_loading import load

FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
}
FLAX_FILES = {
    "unet": "diffusion_flax_model.msgpack",
    "vae": "diffusion_flax_model.msgpack",
    "text_encoder": "flax_model.msgpack",
}


class Folder:
    """A model's folder, with the operations that tests do to its weights."""

    def __init__(self, path: Path):
        self.path = path

    def file(self, component: str) -> Path:
        return self.path / component / FILES[component]

    def flax_file(self, component: str) -> Path:
        return self.path / component / FLAX_FILES[component]

    def tensors(self, component: str) -> dict[str, np.ndarray]:
        return load_file(self.file(component))

    def write(self, component: str, tensors: dict[str, np.ndarray], name: str = "") -> None:
        tensors = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        save_file(tensors, self.file(component).with_name(name or FILES[component]))

    def change(self, component: str, change: Callable[[dict[str, np.ndarray]], None]) -> None:
        tensors = self.tensors(component)
        change(tensors)
        self.write(component, tensors)

    def to_flax(self, component: str, params: dict, rename: Callable[[str], str] = str) -> None:
        """Replaces safetensors by what Flax itself writes of `params`, its paths renamed."""
        flat = traverse_util.flatten_dict(params, sep="/")
        flat = {rename(path): np.asarray(leaf) for path, leaf in flat.items()}
        tree = traverse_util.unflatten_dict(flat, sep="/")
        self.file(component).unlink()
        self.flax_file(component).write_bytes(serialization.msgpack_serialize(tree))


@pytest.fixture
def folder(golden_folder: Callable[[str], Path], tmp_path: Path) -> Folder:
    """A copy of tiny-sd15 that a test may change."""
    ignored = shutil.ignore_patterns("*.npz", "lora")
    return Folder(shutil.copytree(golden_folder("tiny-sd15"), tmp_path / "model", ignore=ignored))


@pytest.fixture(scope="session")
def model(golden_folder: Callable[[str], Path]) -> Model:
    """tiny-sd15, loaded from its safetensors."""
    return load(golden_folder("tiny-sd15"))


@pytest.fixture(scope="session")
def digest(model: Model) -> str:
    """What every other form of tiny-sd15 must load to."""
    return weights_digest(model.params)
