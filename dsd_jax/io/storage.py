"""A run's folder, on this machine or in a bucket (gs://), and files that are whole or not there."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from dsd_jax.errors import UserError


def is_remote(place: str | os.PathLike) -> bool:
    """Whether it names a place in a bucket; `pathlib` makes one slash of the two."""
    return re.match(r"\w\w+:/", os.fspath(place)) is not None


def absolute(place: str | os.PathLike) -> epath.Path:
    """The same place, whatever the working directory becomes."""
    return epath.Path(place if is_remote(place) else os.path.abspath(place))


def make_folder(folder: str | os.PathLike, option: str) -> epath.Path:
    """Creates the folder that `option` names, a path or gs://BUCKET/FOLDER, and makes sure, before
    hours of work, that it is possible to write there.

    Raises:
        UserError: it is not, or it is an address of another kind.
    """
    text = os.fspath(folder)
    if is_remote(text) and not re.match("gs://[^/]", text):
        raise UserError(
            f"{option}={text}: of addresses only gs://BUCKET/FOLDER is understood; name that, or a "
            "folder."
        )
    path = epath.Path(text)
    remedy = "log in or name another bucket" if is_remote(text) else "name another folder"
    with storage_errors(f"{option}={text} cannot be written to", remedy):
        if not is_remote(text):  # buckets have no folders, and we create no buckets
            path.mkdir(parents=True, exist_ok=True)
        probe = path / f".writable-{uuid.uuid4().hex}"  # several hosts try at once
        probe.write_bytes(b"")
        probe.unlink()
    return path


def make_local_folder(folder: str | os.PathLike, option: str) -> epath.Path:
    """As `make_folder`, for what other libraries write, which know no addresses."""
    text = os.fspath(folder)
    if is_remote(text):
        raise UserError(f"{option}={text}: addresses are not understood here; name a folder.")
    return make_folder(text, option)


def write_file(file: epath.Path, content: str | bytes) -> None:
    """Writes a file that is never seen half done, whenever the process ends.

    Raises:
        UserError: there is no room, or writing is not allowed.
    """
    data = content.encode() if isinstance(content, str) else content
    with storage_errors(f"{file} cannot be written"):
        if is_remote(file):  # an object appears when it is complete
            file.write_bytes(data)
            return
        # A name of its own: several hosts may write the same file at once, and the last one wins.
        unfinished = file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}.unfinished")
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, file)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise


@contextmanager
def storage_errors(
    failure: str, remedy: str = "make room or allow it, then run the same command again"
) -> Iterator[None]:
    """Makes an error of a disk or a bucket a `UserError`: "FAILURE (reason); REMEDY."."""
    try:
        yield
    except ImportError as error:
        if "gcs" not in str(error).lower():
            raise
        raise UserError(
            f"{failure}: gs:// needs the package gcsfs; pip install gcsfs, or dsd_jax[gcs]."
        ) from error
    except Exception as error:
        if isinstance(error, UserError) or not _is_of_storage(error):
            raise
        raise UserError(f"{failure} ({_reason(error)}); {remedy}.") from error


def _is_of_storage(error: Exception) -> bool:
    """Whether Python, TensorStore or Google's clients, which share no ancestor, say so."""
    package = type(error).__module__.split(".")[0]
    if isinstance(error, OSError) or package in ("gcsfs", "google", "aiohttp"):
        return True
    # As TensorStore says it; XLA's errors look the same but are RuntimeErrors.
    return isinstance(error, ValueError) and bool(re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)))


def _reason(error: Exception) -> str:
    """The part of the message that says what happened, in one line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    first = re.sub(r" \[.*", "", text.splitlines()[0])
    return first.split(": ")[-1].strip().rstrip(".")[:200]
