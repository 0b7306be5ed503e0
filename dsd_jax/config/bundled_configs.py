"""The configs that come with the program: the folder `configs/`, which is `dsd_jax/configs`, too.

In the repository that is a link, in an installed package a folder: the same path for both. Git
without links (on Windows) makes a small file of it, beside which the folder still is.
"""

from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import did_you_mean, shorten

_PACKAGE = Path(__file__).parents[1]
_PLACES = (_PACKAGE / "configs", _PACKAGE.parent / "configs")
FOLDER = next((place for place in _PLACES if place.is_dir()), _PLACES[0])


def config_names() -> list[str]:
    """Return the names of the configs, sorted, as `--config` takes them."""
    return sorted(file.stem for file in FOLDER.glob("[a-z]*.py"))


def find_config(name: str) -> Path:
    """Return the file of a config by its name, such as `emoji`.

    Raises:
        UserError: there is none of this name; the message lists those there are.
    """
    known = config_names()
    if name in known:
        return FOLDER / f"{name}.py"
    hint = did_you_mean(name, known)
    raise UserError(
        f"there is no config {shorten(name)}; {hint and f'{hint} '}Expected one of "
        f"{', '.join(known)}, or a Python file, whose name ends in .py."
    )
