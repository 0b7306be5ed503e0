"""Folders and files on this machine or in a bucket (gs://), written as a whole or not at all."""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from etils import epath

from dsd_jax.errors import UserError


def is_remote(place: str | os.PathLike) -> bool:
    """Return whether a path is an address such as gs://..., of which `pathlib` drops a slash."""
    return re.match(r"\w\w+:/", os.fspath(place)) is not None


def absolute(place: str | os.PathLike) -> epath.Path:
    """Return the absolute path; an address stays as it is."""
    return epath.Path(place if is_remote(place) else os.path.abspath(place))


def make_folder(folder: str | os.PathLike, option: str) -> epath.Path:
    """Create the folder that a command's `option` names, and check that it can be written to.

    Args:
        folder: a path, or gs://BUCKET/FOLDER.
        option: such as "--workdir", for messages.

    Raises:
        UserError: it can't be written to, or it is an address of another kind.
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
    """Create a folder as `make_folder` does; refuse addresses, which other libraries don't know."""
    text = os.fspath(folder)
    if is_remote(text):
        raise UserError(f"{option}={text}: addresses are not understood here; name a folder.")
    return make_folder(text, option)


def write_file(file: epath.Path, content: str | bytes) -> None:
    """Write a file that is never seen half done, whenever the process ends.

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
    """Turn an error of a disk or a bucket into a `UserError`: "FAILURE (reason); REMEDY."."""
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
    """Return whether an error comes from a disk, TensorStore or Google's clients."""
    package = type(error).__module__.split(".")[0]
    if isinstance(error, OSError) or package in ("gcsfs", "google", "aiohttp"):
        return True
    # As TensorStore says it; XLA's errors look the same but are RuntimeErrors.
    return isinstance(error, ValueError) and bool(re.match(r"[A-Z]+(_[A-Z]+)*: ", str(error)))


def _reason(error: Exception) -> str:
    """Return the part of the message that says what happened, in one line."""
    text = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    first = re.sub(r" \[.*", "", text.splitlines()[0])
    return first.split(": ")[-1].strip().rstrip(".")[:200]
