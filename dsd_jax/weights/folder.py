"""Where a model is: the bundled one, a local folder, or a model on the Hub."""

import os
import re
from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.weights import hub
from dsd_jax.weights.component import COMPONENTS
from dsd_jax.weights.json_file import read_json

BUNDLED = Path(__file__).parent.parent / "assets" / "tiny"
_HUB_ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")
_PARTS = (*(component.folder for component in COMPONENTS), "tokenizer", "scheduler")


def find(where: str | os.PathLike) -> Path:
    """The local folder of the model `where`: "tiny", a folder, or "org/name[@revision]".

    A folder goes before a model of that name on the Hub. `UserError` where there is no model.
    """
    if where == "tiny":
        return _checked(BUNDLED)
    folder = Path(where).expanduser()
    if where != "" and folder.is_dir():
        return _checked(folder)
    if folder.is_file():
        raise UserError(
            f"{where} is a single file; expected {hub.LAYOUT}, which diffusers makes of it with "
            "StableDiffusionPipeline.from_single_file(file).save_pretrained(folder)."
        )
    hub_id = _HUB_ID.fullmatch(where) if isinstance(where, str) else None
    if hub_id is None:
        raise UserError(
            f"There is no model at '{where}'; expected \"tiny\", {hub.LAYOUT}, or a model on the "
            'Hub as "org/name" or "org/name@revision".'
        )
    return _checked(hub.fetch(*hub_id.groups()))


def _checked(folder: Path) -> Path:
    """`folder` if it is laid out like a model that we know; says what it is if not."""
    index = folder / "model_index.json"
    kind = str(read_json(index).get("_class_name", "")) if index.is_file() else ""
    if "XL" in kind or (folder / "text_encoder_2").is_dir():
        raise UserError(
            f"{folder} is an SDXL model, which is not supported yet; use a Stable Diffusion 1.x "
            "or 2.x model."
        )
    missing = [part for part in _PARTS if not (folder / part).is_dir()]
    if not missing:
        return folder
    if (folder / "config.json").is_file():
        hint = f"it looks like one component of a model, so give the folder above, {folder.parent}"
    else:
        found = [f"{part}/" for part in _PARTS if part not in missing]
        found = found or sorted(entry.name for entry in folder.iterdir())
        hint = f"it has {', '.join(found[:12]) or 'nothing in it'}"
    pipeline = f" (a {kind})" if kind and "StableDiffusion" not in kind else ""
    raise UserError(
        f"{folder}{pipeline} is not a Stable Diffusion model in the Hugging Face layout: "
        f"{', '.join(f'{part}/' for part in missing)} missing; {hint}."
    )
