"""Folders that are written once and read from then on: there whole, or not at all."""

import contextlib
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError

UNFINISHED = "unfinished-"  # starts the name of a folder that is being written, or was until a kill
FORGOTTEN_AFTER = 24 * 3600  # seconds until such a folder is nobody's any more


def prepared(data_dir: Path, place: Path, write: Callable[[Path], Path]) -> Path:
    """The folder `place` in `data_dir`, written first if it isn't there.

    It is written under another name and renamed when complete; that may be killed, or run many
    times at once.

    Args:
        data_dir: what prepared folders are kept in.
        place: the folder's path below it.
        write: given a new folder, writes into it; returns what in it is to become `place`.

    Raises:
        UserError: it is not possible to write there.
    """
    folder = data_dir / place
    if folder.exists():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        remove_forgotten(data_dir)
        with tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=data_dir) as temporary:
            move(write(Path(temporary)), folder)
    except OSError as error:
        raise UserError(
            f"Can't write the benchmark into {data_dir} ({error.strerror}): "
            "name a folder that can be written, for all caches by setting DSD_CACHE."
        ) from error
    return folder


def build(builder: Any) -> None:
    """Writes a tensorflow-datasets builder's files; nothing is downloaded, nothing printed."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it downloads, which it does not
        builder.download_and_prepare()


def move(source: Path, target: Path) -> None:
    """Renames a folder, unless somebody else, making the same one, was faster."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


def remove_forgotten(data_dir: Path) -> None:
    """Deletes what killed preparations left behind long ago."""
    for folder in data_dir.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(FileNotFoundError):  # somebody else deletes it
            if folder.stat().st_mtime < time.time() - FORGOTTEN_AFTER:
                shutil.rmtree(folder, ignore_errors=True)
