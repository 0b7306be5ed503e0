"""Reads pickles of plain data, and nothing else: a pickle may otherwise run any program."""

import io
import pickle
from pathlib import Path
from typing import Any, NoReturn

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file

_MOST = 2**30  # bytes


class PlainUnpickler(pickle.Unpickler):
    """Knows lists, tuples, dictionaries, texts and numbers, which need no names from modules."""

    def find_class(self, module: str, name: str) -> NoReturn:
        """Refuses whatever the pickle would import, before it is imported."""
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> NoReturn:
        """Refuses what lies outside the file."""
        raise pickle.UnpicklingError(f"it refers to {pid}")


def read_pickle(path: Path) -> Any:
    """Return what a pickle file of plain data holds; Python 2's texts are read as UTF-8.

    Bytes in a text that are no UTF-8 become lone surrogates, for the reader to refuse.

    Raises:
        UserError: it holds anything else, or is damaged. Nothing in it is ever executed.
    """
    content = io.BytesIO(read_regular_file(path, most=_MOST))
    try:
        return PlainUnpickler(content, encoding="utf-8", errors="surrogateescape").load()
    except Exception as error:  # damaged pickles make Python's reader raise nearly anything
        raise UserError(
            f"{path} is no pickle of plain lists and texts ({error}), so it is not read; get the "
            "original file."
        ) from error
