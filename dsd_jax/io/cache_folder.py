"""The folder of all caches, and paths that begin with a home folder."""

import os
from pathlib import Path

from dsd_jax.errors import UserError

_USUAL = "~/.cache/dsd_jax"  # as configs and messages write it


def cache_folder() -> Path:
    """Return the folder for what can be computed again: compiled programs, benchmarks, encodings.

    It is `$DSD_CACHE`, else `$XDG_CACHE_HOME/dsd_jax`, else `~/.cache/dsd_jax`.

    Raises:
        UserError: none of these is known, as for a user without a home folder.
    """
    if named := os.environ.get("DSD_CACHE"):
        return Path(named).absolute()
    if os.path.isabs(shared := os.environ.get("XDG_CACHE_HOME", "")):
        return Path(shared, "dsd_jax")
    try:
        return Path(_USUAL).expanduser()
    except RuntimeError as error:
        raise UserError(
            "there is no home folder to keep caches in; set DSD_CACHE to a folder that can be "
            "written to."
        ) from error


def expand(path: str | os.PathLike) -> Path:
    """Return `path` with `~` and `~user` written out; `~/.cache/dsd_jax` is the `cache_folder`.

    Raises:
        UserError: there is no such home folder.
    """
    path = Path(path)
    if path.is_relative_to(_USUAL):
        return cache_folder() / path.relative_to(_USUAL)
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise UserError(
            f"{path}: no home folder is known for '{path.parts[0]}'; write the path out."
        ) from error
