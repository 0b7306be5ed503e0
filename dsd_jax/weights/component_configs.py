"""What the JSON files of a model's folder say about it, checked."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from dsd_jax.diffusion.schedule import Schedule
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder, read_json
from dsd_jax.io.validation import List, parse
from dsd_jax.models.components import Component
from dsd_jax.models.json_config import REMEDY, ConfigFile


class _Class(ConfigFile):
    """The class that a `config.json` is of: diffusers and transformers say it differently."""

    class_name: str | None = Field(None, alias="_class_name")
    architectures: List[str] | None = None

    @property
    def stated(self) -> str | None:
        """The class's name; None where the file does not tell."""
        return self.class_name or next(iter(self.architectures or ()), None)


class ModelIndex(ConfigFile):
    """What `model_index.json` says of a model beside its components.

    Attributes:
        class_name: of diffusers' pipeline.
        force_zeros_for_empty_prompt: SDXL's setting of what an empty caption is; diffusers takes
            zeros where it is absent.
    """

    class_name: str | None = Field(None, alias="_class_name")
    force_zeros_for_empty_prompt: bool | None = True


def read_index(folder: Path) -> ModelIndex:
    """Return what a model's folder says in `model_index.json`, which it need not have.

    Raises:
        UserError: the file is damaged, or a field is of another kind.
    """
    file = folder / "model_index.json"
    stated = read_json(file) if file.name in list_folder(folder) else {}
    return parse(ModelIndex, stated, str(file), "use the one that diffusers wrote for this model")


def read_config(folder: Path, component: Component) -> Any:
    """Return the config of one component.

    Raises:
        UserError: its file is missing, damaged, of another class, or describes a network that is
            too large or that we don't build.
    """
    file = folder / component.folder / "config.json"
    json = read_json(file)
    stated = parse(_Class, json, str(file), REMEDY).stated
    if stated is not None and stated.removeprefix("Flax") not in component.classes:
        raise UserError(
            f"{file} describes the class {stated}, expected {component.classes[0]} of "
            f"{component.model}."
        )
    return _parsed(folder, json, component.read_config)


def read_schedule(folder: Path) -> Schedule:
    """Return the noise schedule.

    Raises:
        UserError: its file is missing, damaged or asks for another kind of schedule.
    """
    json = read_json(folder / "scheduler" / "scheduler_config.json")
    return _parsed(folder, json, Schedule.from_json)


def _parsed(folder: Path, json: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Any]) -> Any:
    try:
        return read(json)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
