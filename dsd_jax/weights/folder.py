"""Where a model is: the bundled one, a local folder, or a model on the Hub."""

import os
import re
from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.home import expand
from dsd_jax.json_file import read_json
from dsd_jax.weights import hub
from dsd_jax.weights.component import TEXT_2
from dsd_jax.weights.layout import parts, refuse_others

BUNDLED = Path(__file__).parent.parent / "assets" / "tiny"
HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


def find(where: str | os.PathLike) -> Path:
    """The local folder of the model `where`: "tiny", a folder, or "org/name[@revision]".

    A folder goes before a model of that name on the Hub. `UserError` where there is no model.
    """
    if where == "tiny":
        return _checked(BUNDLED)
    folder = expand(where)
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


def subfolders(folder: Path) -> set[str]:
    """Their names."""
    return {entry.name for entry in folder.iterdir() if entry.is_dir()}


def _checked(folder: Path) -> Path:
    """`folder` if it is laid out like a model that we know; says what it is if not."""
    index = folder / "model_index.json"
    kind = str(read_json(index).get("_class_name", "")) if index.is_file() else ""
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
        found = found or sorted(entry.name for entry in folder.iterdir())
        hint = f"it has {', '.join(found[:12]) or 'nothing in it'}"
    pipeline = f" (a {kind})" if kind and "StableDiffusion" not in kind else ""
    raise UserError(
        f"{folder}{pipeline} is not a Stable Diffusion model in the Hugging Face layout: "
        f"{', '.join(f'{part}/' for part in missing)} missing; {hint}."
    )
