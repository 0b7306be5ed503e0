"""Lists that a user hands in: files by name or pattern, and texts, one a line."""

import glob
import os
import sys
from collections.abc import Sequence

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_regular_file
from dsd_jax.io.terminal import printable, shorten

_MAX_BYTES = 2**24  # of a file of texts


def expand_patterns(names: Sequence[str], option: str) -> list[str]:
    """Return the files that names and patterns stand for, those of a pattern sorted.

    Shells expand `*.png` themselves, but not where it is quoted or follows `--option=`.

    Args:
        names: of files, or patterns with `*`, `?`, `[...]` and `**`.
        option: for messages.

    Raises:
        UserError: a pattern matches no file.
    """
    files = []
    for name in names:
        is_pattern = any(letter in name for letter in "*?[") and not os.path.lexists(name)
        found = sorted(glob.glob(name, recursive=True)) if is_pattern else [name]
        found = [file for file in found if not is_pattern or os.path.isfile(file)]
        if not found:
            raise UserError(f"{option} {shorten(name)} matches no file; name others.")
        files += found
    return files


def read_texts(file: str, option: str) -> list[str]:
    """Return the lines of a file, or of stdin, that are not empty.

    Args:
        file: its path; "-" is stdin.
        option: for messages.

    Raises:
        UserError: it can't be read, is no text in UTF-8, too large, or has no text in it.
    """
    where = "stdin" if file == "-" else printable(file[:200])
    content = sys.stdin.buffer.read(_MAX_BYTES + 1) if file == "-" else None
    if content is None:
        content = read_regular_file(file, most=_MAX_BYTES)
    if len(content) > _MAX_BYTES:
        raise UserError(f"{option}: {where} has more than {_MAX_BYTES:,} bytes; give fewer lines.")
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UserError(
            f"{option}: {where}, line {line} is no text in UTF-8; save it in that encoding."
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise UserError(f"{option}: {where} has no text in it; write one a line.")
    return texts
