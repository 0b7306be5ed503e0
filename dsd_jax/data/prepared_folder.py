"""Prepared folders: written once, complete or not at all, and read from then on."""

import contextlib
import fcntl
import io
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import read_json

UNFINISHED = "unfinished-"  # starts the name of a folder that is being written, or was until a kill
# In every such folder, locked as long as its process lives: folders without it are not deleted.
MARKER, WRITTEN_BY = ".being-prepared", b"by dsd_jax"
FORGOTTEN_AFTER = 24 * 3600  # seconds until such a folder is deleted


def prepared(data_dir: Path, place: Path, write: Callable[[Path], Path]) -> Path:
    """Return the folder `place` in `data_dir`, written first if it isn't there.

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
        with (
            tempfile.TemporaryDirectory(prefix=UNFINISHED, dir=data_dir) as temporary,
            marked(Path(temporary)),
        ):
            move(write(Path(temporary)), folder)
    except OSError as error:
        raise UserError(
            f"Can't write the benchmark into {data_dir} ({error.strerror}): "
            "name a folder that can be written, for all caches by setting DSD_CACHE."
        ) from error
    return folder


@contextlib.contextmanager
def read_prepared(folder: Path) -> Iterator[None]:
    """Turn the errors of damaged files in the folder into one sentence; bugs stay bugs.

    Raises:
        UserError: a file in the folder is damaged.
    """
    try:
        for file in folder.glob("*.json"):  # tensorflow-datasets does not check their content
            read_json(file)
        yield
    except Exception as error:
        if not _is_of_damage(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0].removesuffix(".")
        raise UserError(f"{folder} is damaged ({reason}): delete it and run again.") from error


def _is_of_damage(error: Exception) -> bool:
    if isinstance(error, OSError | ValueError | LookupError):
        return True
    # ArrayRecord raises plain RuntimeErrors, and protobuf errors of its own.
    return type(error) is RuntimeError or type(error).__module__.startswith("google.protobuf")


def build(builder: Any) -> None:
    """Write a tensorflow-datasets builder's files; nothing is downloaded, nothing printed."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(io.StringIO()):  # it says that it downloads, which it does not
        builder.download_and_prepare()


def open_records(folder: Path, split: str, image_fields: Sequence[str]) -> tuple[Any, Any]:
    """Return the builder of a prepared folder and a split's records, whose images stay files."""
    import tensorflow_datasets as tfds

    builder: Any = tfds.builder_from_directory(folder)
    as_bytes = {name: tfds.decode.SkipDecoding() for name in image_fields}
    return builder, builder.as_data_source(split, decoders=as_bytes)


def move(source: Path, target: Path) -> None:
    """Rename a folder, unless another process made the same one meanwhile."""
    try:
        source.rename(target)
    except OSError:
        if not target.exists():
            raise


@contextlib.contextmanager
def marked(folder: Path) -> Iterator[None]:
    """Mark a new folder as one that this process is writing, until it is done."""
    with (folder / MARKER).open("wb") as marker:
        marker.write(WRITTEN_BY)
        marker.flush()
        lock(marker.fileno())
        yield


def lock(file: int) -> bool:
    """Lock a file until it is closed; return False where another process has done so."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def remove_forgotten(data_dir: Path) -> None:
    """Delete the folders that killed preparations left behind long ago, and no others."""
    for folder in data_dir.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):  # it has no marker, or another process deletes it
            with (folder / MARKER).open("rb") as marker:
                is_ours = not folder.is_symlink() and marker.read() == WRITTEN_BY
                # A clock may jump by years while another process writes there.
                if not (is_ours and lock(marker.fileno())):
                    continue
            if folder.stat().st_mtime < time.time() - FORGOTTEN_AFTER:
                shutil.rmtree(folder, ignore_errors=True)
