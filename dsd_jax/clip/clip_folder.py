"""Where a CLIP is: the bundled one, a local folder, or a model on the Hub."""

import os
from pathlib import Path

from dsd_jax.clip.clip_component import COMPONENT, LAYOUT, PREPROCESSOR, TOKENIZER
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import list_folder
from dsd_jax.weights import hub
from dsd_jax.weights.model_folder import HUB_ID, local_path

_KIND = hub.ModelKind(
    files=(PREPROCESSOR, *TOKENIZER),
    find_components=lambda *_: (COMPONENT,),
    all_components=(COMPONENT,),
    layout=LAYOUT,
)
BUNDLED = Path(__file__).parent.parent / "assets" / "tiny-clip"


def find(where: str | os.PathLike) -> Path:
    """The local folder of the CLIP `where`: "tiny-clip", a folder, or "org/name[@revision]".

    A folder goes before a model of that name on the Hub. `UserError` where there is no CLIP.
    """
    if where == "tiny-clip":
        return BUNDLED
    folder = local_path(where)
    if where != "" and folder.is_dir():
        return _checked(folder)
    hub_id = HUB_ID.fullmatch(where) if isinstance(where, str) else None
    if hub_id is None:
        raise UserError(
            f"There is no CLIP at '{where}'; expected \"tiny-clip\", {LAYOUT}, or a model on the "
            'Hub as "org/name" or "org/name@revision".'
        )
    return _checked(hub.fetch(hub_id[1], hub_id[2], _KIND))


def _checked(folder: Path) -> Path:
    if (folder / "config.json").is_file():
        return folder
    if (folder / "model_index.json").is_file():
        raise UserError(f"{folder} is a diffusion pipeline and no CLIP; expected {LAYOUT}.")
    found = ", ".join(list_folder(folder)[:12]) or "nothing"
    raise UserError(f"{folder} is no CLIP: expected {LAYOUT}, found {found}.")
