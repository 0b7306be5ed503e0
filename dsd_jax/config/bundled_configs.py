"""The configs that come with the program: the folder `configs/`, which is `dsd_jax/configs`, too.

In the repository that is a link, in an installed package a folder: the same path for both.
"""

from pathlib import Path

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import did_you_mean, shorten

FOLDER = Path(__file__).parents[1] / "configs"


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
