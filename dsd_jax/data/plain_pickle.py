"""Reads pickles of plain data, and nothing else: a pickle may otherwise run any program."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from dsd_jax.errors import UserError


class PlainUnpickler(pickle.Unpickler):
    """Knows lists, tuples, dictionaries, texts and numbers, which need no names from modules."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuses whatever the pickle would import, before it is imported."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuses what lies outside the file."""
        raise pickle.UnpicklingError(f"it refers to {pid}")


def read_pickle(path: Path) -> Any:
    """What a pickle file of plain data holds; Python 2's texts are read as Latin-1.

    Raises:
        UserError: it holds anything else, or is damaged. Nothing in it is ever executed.
    """
    try:
        return PlainUnpickler(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from error
    except Exception as error:  # damaged pickles make Python's reader raise nearly anything
        raise UserError(
            f"{path} is no pickle of plain lists and texts ({error}), so it is not read; get the "
            "original file."
        ) from error
