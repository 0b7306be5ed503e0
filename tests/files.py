"""Puts something into a file's place that is no file to read."""

import os
import shutil
from pathlib import Path


def replace_by(file: Path, kind: str) -> None:
    """Replace `file` by a "fifo", a "folder", a dangling "link" or a link to itself ("loop")."""
    if file.is_dir() and not file.is_symlink():
        shutil.rmtree(file)
    else:
        file.unlink()
    if kind == "fifo":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.symlink_to("../../blobs/0123" if kind == "link" else file.name)
