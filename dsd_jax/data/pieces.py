"""The files that a benchmark consists of: found, or all missing ones named in one message."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from dsd_jax.errors import UserError


class Piece(NamedTuple):
    """A file or folder that must be there.

    names: where it may be, relative to the benchmark's folder, the usual place first.
    source: where people get it.
    """

    names: tuple[str, ...]
    source: str


def existing_folder(folder: str | Path, field: str = "folder") -> Path:
    """The folder as a path, `~` expanded.

    Raises:
        UserError: it is not there.
    """
    path = Path(folder).expanduser()
    if not str(folder) or not path.is_dir():
        raise UserError(f"{field}='{folder}' is no folder; name the one that holds the data.")
    return path


def find_pieces(folder: Path, pieces: Sequence[Piece]) -> list[Path]:
    """The path of each piece.

    Raises:
        UserError: some are missing; all of these are named, with where they come from.
    """
    found = [first_existing(folder, piece.names) for piece in pieces]
    lacking = [piece for piece, path in zip(pieces, found, strict=True) if path is None]
    if lacking:
        told = "; ".join(f"{' or '.join(piece.names)}, from {piece.source}" for piece in lacking)
        raise UserError(f"{folder} lacks {told}.")
    return found


def first_existing(folder: Path, names: Iterable[str]) -> Path | None:
    """The first of several places in a folder where there is anything; None if there is none."""
    return next((folder / name for name in names if (folder / name).exists()), None)
