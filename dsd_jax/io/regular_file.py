"""Files that come from outside: regular ones alone, opened once, of limited size."""

import os
import stat
from pathlib import Path
from typing import BinaryIO

from dsd_jax.errors import UserError
from dsd_jax.io.printable import printable


def open_regular_file(file: str | os.PathLike) -> BinaryIO:
    """Open a regular file to read bytes from it.

    A FIFO or a device would block or never end, so what is opened is checked before it is read.

    Raises:
        UserError: it is missing, a folder, no regular file, or not allowed to be read.
    """
    path = Path(file)
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError as error:
        where = f", a link to {os.readlink(path)}, which is not there" if path.is_symlink() else ""
        raise UserError(f"{path} is missing{where}.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise unreadable(path, error) from error
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
        raise UserError(f"{path} is {kind}; expected a file.")
    return open(descriptor, "rb")


def read_regular_file(file: str | os.PathLike, *, most: int = 2**28) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    Raises:
        UserError: as `open_regular_file`, or it is too large.
    """
    with open_regular_file(file) as opened:
        size = os.fstat(opened.fileno()).st_size
        if size > most:
            raise UserError(f"{file} has {size:,} bytes; expected at most {most:,} of such a file.")
        try:
            return opened.read()
        except OSError as error:
            raise unreadable(Path(file), error) from error


def list_folder(folder: str | os.PathLike) -> list[str]:
    """Return the names of what is in a folder, sorted; raises `UserError` where that can't be."""
    try:
        return sorted(os.listdir(folder))
    except (OSError, ValueError) as error:
        raise unreadable(Path(folder), error) from error


def unreadable(path: Path, error: Exception) -> UserError:
    """Return the `UserError` for a file or folder that the system does not let us read."""
    reason = getattr(error, "strerror", None) or error
    return UserError(f"{printable(str(path)[:200])} can't be read ({reason}).")
