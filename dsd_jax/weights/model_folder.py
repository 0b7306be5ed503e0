"""A model's folder: where it is (bundled, local or on the Hub), its parts, and their settings."""

import os
from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from dsd_jax.diffusion.noising import Schedule
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import expand, list_folder, read_json
from dsd_jax.io.validation import parse
from dsd_jax.models.components import TEXT_2, Component, components
from dsd_jax.models.json_config import ConfigFile
from dsd_jax.weights import hub

BUNDLED = Path(__file__).parent.parent / "assets" / "tiny"
LAYOUT = "a folder with unet/, vae/, text_encoder/, tokenizer/ and scheduler/"
_FAMILIES = "dsd_jax reads Stable Diffusion 1.x, 2.x and SDXL"


class ModelIndex(ConfigFile):
    """The settings of `model_index.json`, beside its list of components.

    Attributes:
        class_name: class of diffusers' pipeline.
        force_zeros_for_empty_prompt: SDXL's setting of what an empty caption is; diffusers takes
            zeros where it is absent.
    """

    class_name: str | None = Field(None, alias="_class_name")
    force_zeros_for_empty_prompt: bool | None = True


def parts(folders: Collection[str]) -> tuple[str, ...]:
    """Return the subfolders that a model which has `folders` needs."""
    ours = components(folders)
    tokenizers = [component.tokenizer for component in ours if component.tokenizer]
    return (*(component.folder for component in ours), *tokenizers, "scheduler")


def checked_components(folders: Collection[str], where: str) -> tuple[Component, ...]:
    """Return the components of the model `where`, which has `folders`.

    Raises:
        UserError: it is of another architecture.
    """
    if "unet" not in folders and "transformer" in folders:
        raise UserError(
            f"{where} has a transformer/ instead of a unet/, as Stable Diffusion 3, Flux and "
            f"PixArt have; {_FAMILIES}, whose denoisers are UNets."
        )
    if "movq" in folders:
        raise UserError(f"{where} has a movq/, as Kandinsky has; {_FAMILIES}.")
    if "unet" in folders and "text_encoder_2" in folders and "text_encoder" not in folders:
        raise UserError(
            f"{where} has a text_encoder_2/ and no text_encoder/: it is SDXL's refiner, which only "
            "finishes what the base model has drawn; use the base model, such as "
            "stabilityai/stable-diffusion-xl-base-1.0."
        )
    return components(folders)


STABLE_DIFFUSION = hub.ModelKind(
    files=("model_index.json", "scheduler/scheduler_config.json"),
    find_components=checked_components,
    all_components=components([TEXT_2.folder]),
    noun="model",
    bundled="tiny",
    layout=LAYOUT,
)


def find(where: str | os.PathLike) -> Path:
    """Return the local folder of a model: "tiny", a folder, or "org/name[@revision]" on the Hub.

    A folder goes before a model of that name on the Hub.

    Raises:
        UserError: there is no model, or it is of another architecture.
    """
    if where == "tiny":
        return _checked(BUNDLED)
    folder = local_path(where)
    if where != "" and folder.is_dir():
        return _checked(folder)
    if folder.is_file():
        raise UserError(
            f"{where} is a single file; expected {LAYOUT}, which diffusers makes of it with "
            "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)."
        )
    return _checked(hub.fetch_named(where, STABLE_DIFFUSION))


def local_path(where: str | os.PathLike) -> Path:
    """Return `where` as a path whose existence can be asked for.

    Raises:
        UserError: the name is too long, has a NUL or an unknown user in it, or is in a folder that
            may not be read.
    """
    path = expand(where)
    try:
        path.lstat()  # unlike `exists`, it tells of a NUL
    except FileNotFoundError:
        return path
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{str(where)[:200]} can't be read ({reason}).") from error
    return path


def subfolders(folder: Path) -> set[str]:
    """Return the names of a folder's subfolders."""
    return {name for name in list_folder(folder) if (folder / name).is_dir()}


def _checked(folder: Path) -> Path:
    """Return `folder` if it is laid out like a model that we know; raises `UserError`."""
    kind = read_index(folder).class_name or ""
    folders = subfolders(folder)
    checked_components(folders, f"{folder} (a {kind})" if kind else str(folder))
    needed = parts(folders | {TEXT_2.folder} if "XL" in kind else folders)
    missing = [part for part in needed if part not in folders]
    if not missing:
        return folder
    if (folder / "config.json").is_file():
        hint = f"it looks like one component of a model, so give the folder above, {folder.parent}"
    else:
        present = [f"{part}/" for part in needed if part not in missing] or list_folder(folder)
        hint = f"it has {', '.join(present[:12]) or 'nothing in it'}"
    pipeline = f" (a {kind})" if kind and "StableDiffusion" not in kind else ""
    raise UserError(
        f"{folder}{pipeline} is not a Stable Diffusion model in the Hugging Face layout: "
        f"{', '.join(f'{part}/' for part in missing)} missing; {hint}."
    )


def read_index(folder: Path) -> ModelIndex:
    """Return the settings of `model_index.json`, which a model need not have.

    Raises:
        UserError: the file is damaged, or a field is of another kind.
    """
    file = folder / "model_index.json"
    json = read_json(file) if file.name in list_folder(folder) else {}
    return parse(ModelIndex, json, str(file), "use the one that diffusers wrote for this model")


def read_schedule(folder: Path) -> Schedule:
    """Return the noise schedule.

    Raises:
        UserError: its file is missing, damaged or asks for another kind of schedule.
    """
    json = read_json(folder / "scheduler" / "scheduler_config.json")
    try:
        return Schedule.from_json(json)
    except UserError as error:
        raise UserError(f"{folder}: {error}") from error
