"""What the JSON files of a model's folder say about it, checked."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsd_jax.diffusion import Schedule
from dsd_jax.errors import UserError
from dsd_jax.json_file import read_json
from dsd_jax.weights.component import Component


def read_config(folder: Path, component: Component) -> Any:
    """The config of one component; `UserError` where it is missing, damaged or of another class."""
    file = folder / component.folder / "config.json"
    json = read_json(file)
    stated = json.get("_class_name") or next(iter(json.get("architectures") or []), None)
    if stated is not None and str(stated).removeprefix("Flax") not in component.classes:
        raise UserError(
            f"{file} describes the class {stated}, expected {component.classes[0]} of "
            f"{component.model}."
        )
    return _parsed(folder, file, json, component.read_config)


def abstract_params(folder: Path, component: Component, config: Any) -> dict[str, Any]:
    """The tree of parameters for `config`; `UserError` where its numbers don't go together."""
    try:
        return component.abstract_params(config)
    except Exception as error:  # whatever Flax and JAX raise in building such a network
        reason = str(error).strip().split("\n")[0].removesuffix(".")
        raise UserError(
            f"{folder / component.folder / 'config.json'} describes a network that can't be built: "
            f"{reason}."
        ) from error


def read_schedule(folder: Path) -> Schedule:
    """The noise schedule; `UserError` where its file is missing, damaged or asks for another."""
    file = folder / "scheduler" / "scheduler_config.json"
    return _parsed(folder, file, read_json(file), Schedule.from_json)


def _parsed(
    folder: Path, file: Path, json: dict[str, Any], parse: Callable[[dict[str, Any]], Any]
) -> Any:
    try:
        return parse(json)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise UserError(f"{file} has a field of an unexpected kind: {error}.") from error
