"""Reading whole files that come from outside: regular ones alone, opened once, of limited size."""

import os
import stat
from pathlib import Path

from dsd_jax.errors import UserError


def read_regular_file(file: str | os.PathLike, *, most: int = 2**28) -> bytes:
    """Return the content of a regular file of at most `most` bytes.

    A FIFO or a device would block or never end, so what is opened is checked before it is read.

    Raises:
        UserError: it is missing, a folder, no regular file, not allowed to be read, or too large.
    """
    path = Path(file)
    try:
        # Without O_NONBLOCK, opening a FIFO waits for somebody who writes to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            _check(path, os.fstat(descriptor), most)
            with open(descriptor, "rb", closefd=False) as opened:
                return opened.read()
        finally:
            os.close(descriptor)
    except UserError:
        raise
    except FileNotFoundError as error:
        where = f", a link to {os.readlink(path)}, which is not there" if path.is_symlink() else ""
        raise UserError(f"{path} is missing{where}.") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} can't be read ({reason}).") from error


def _check(path: Path, found: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = "a folder" if stat.S_ISDIR(found.st_mode) else "no regular file"
        raise UserError(f"{path} is {kind}; expected a file.")
    if found.st_size > most:
        raise UserError(
            f"{path} has {found.st_size:,} bytes; expected at most {most:,} of such a file."
        )
