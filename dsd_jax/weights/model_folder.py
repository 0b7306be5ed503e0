"""Where a model is: the bundled one, a local folder, or a model on the Hub."""

import os
import re
from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import expand, list_folder
from dsd_jax.models.components import TEXT_2
from dsd_jax.weights import hub
from dsd_jax.weights.component_configs import read_index
from dsd_jax.weights.folder_layout import parts, refuse_others

BUNDLED = Path(__file__).parent.parent / "assets" / "tiny"
HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


def find(where: str | os.PathLike) -> Path:
    """The local folder of the model `where`: "tiny", a folder, or "org/name[@revision]".

    A folder goes before a model of that name on the Hub. `UserError` where there is no model.
    """
    if where == "tiny":
        return _checked(BUNDLED)
    folder = local_path(where)
    if where != "" and folder.is_dir():
        return _checked(folder)
    if folder.is_file():
        raise UserError(
            f"{where} is a single file; expected {hub.LAYOUT}, which diffusers makes of it with "
            "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)."
        )
    hub_id = HUB_ID.fullmatch(where) if isinstance(where, str) else None
    if hub_id is None:
        raise UserError(
            f"There is no model at '{where}'; expected \"tiny\", {hub.LAYOUT}, or a model on the "
            'Hub as "org/name" or "org/name@revision".'
        )
    return _checked(hub.fetch(*hub_id.groups()))


def local_path(where: str | os.PathLike) -> Path:
    """Return `where` as a path that can be looked at.

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
    """Their names."""
    return {name for name in list_folder(folder) if (folder / name).is_dir()}


def _checked(folder: Path) -> Path:
    """`folder` if it is laid out like a model that we know; says what it is if not."""
    kind = read_index(folder).class_name or ""
    folders = subfolders(folder)
    refuse_others(folders, f"{folder} (a {kind})" if kind else str(folder))
    needed = parts(folders | {TEXT_2.folder} if "XL" in kind else folders)
    missing = [part for part in needed if part not in folders]
    if not missing:
        return folder
    if (folder / "config.json").is_file():
        hint = f"it looks like one component of a model, so give the folder above, {folder.parent}"
    else:
        found = [f"{part}/" for part in needed if part not in missing]
        found = found or list_folder(folder)
        hint = f"it has {', '.join(found[:12]) or 'nothing in it'}"
    pipeline = f" (a {kind})" if kind and "StableDiffusion" not in kind else ""
    raise UserError(
        f"{folder}{pipeline} is not a Stable Diffusion model in the Hugging Face layout: "
        f"{', '.join(f'{part}/' for part in missing)} missing; {hint}."
    )
