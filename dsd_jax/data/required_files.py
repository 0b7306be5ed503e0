"""The files that a benchmark consists of: found, or all missing ones named in one message."""

import stat
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import expand


class Piece(NamedTuple):
    """A file or folder that must be there.

    names: where it may be, relative to the benchmark's folder, the usual place first.
    source: where people get it.
    """

    names: tuple[str, ...]
    source: str


def existing_folder(folder: str | Path, field: str = "folder") -> Path:
    """Return the folder as a path, `~` expanded.

    Raises:
        UserError: it is not there.
    """
    path = expand(folder)
    try:
        if str(folder) and stat.S_ISDIR(path.stat().st_mode):
            return path
        reason = ""
    except (FileNotFoundError, NotADirectoryError):
        reason = ""
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = f" ({getattr(error, 'strerror', None) or error})"
    raise UserError(f"{field}='{folder}' is no folder{reason}; name the one that holds the data.")


def find_pieces(
    folder: Path, pieces: Sequence[Piece], place: Path | None = None, pictures: Piece | None = None
) -> list[Path]:
    """The path of each piece.

    Args:
        folder: what holds the pieces.
        pieces: annotation files, all of which must be there.
        place: what holds the pictures' folders.
        pictures: these folders; that there is none is told only along with other missing pieces,
            for pictures may lie in `place` itself, and annotations say which are needed.

    Raises:
        UserError: some are missing; all of these are named, with where they come from.
    """
    found = [first_existing(folder, piece.names) for piece in pieces]
    lacking = [piece for piece, path in zip(pieces, found, strict=True) if path is None]
    if lacking:
        if pictures and first_existing(place or folder, filter(None, pictures.names)) is None:
            lacking.append(Piece(tuple(filter(None, pictures.names)), pictures.source))
        told = "; ".join(f"{' or '.join(piece.names)}, from {piece.source}" for piece in lacking)
        raise UserError(f"{folder} lacks {told}.")
    return found


def first_existing(folder: Path, names: Iterable[str]) -> Path | None:
    """Return the first of several places in a folder where there is anything, if there is one.

    Raises:
        UserError: the folder may not be looked into.
    """
    return next((folder / name for name in names if _is_there(folder / name)), None)


def _is_there(path: Path) -> bool:
    try:
        path.lstat()  # not what a link points to: that it is broken is told when it is read
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:
        raise UserError(f"{path} can't be looked for ({error}).") from error
    return True
