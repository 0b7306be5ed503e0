"""A run's folder: whose it is, one run at a time, and no file of anybody else's overwritten.

A run's first file, `run.json`, says what the run is and the SHA-256 of each file that a later start
might write again. What it does not name was not written by the run, and is left alone.
"""

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.experiment.run_marker import (
    CONFIG,
    MARKER,
    REMEDY,
    REPORTS,
    Marker,
    adopt,
    differences_from,
    digest,
    read_marker,
    write_marker,
)
from dsd_jax.io.storage import is_remote, storage_errors, write_file
from dsd_jax.version import __version__

_LOG = "metrics.jsonl"
_FOLDERS = ("checkpoints", "prompts", "scores", "evaluate")
_FILES = (MARKER, CONFIG, _LOG, *REPORTS)


@dataclass(frozen=True)
class Workdir:
    """A folder that belongs to this run.

    Attributes:
        folder: where the run writes.
        command: such as "train".
        settings: the config and what else decides the report, JSON values.
        is_finished: whether the run has ended before and its reports are there.
    """

    folder: epath.Path
    command: str
    settings: Mapping[str, Any]
    is_finished: bool

    def begin(self, config: str) -> None:
        """Write the marker and `config.json` unless they are there; the main process's part.

        Raises:
            UserError: they cannot be written.
        """
        marker = read_marker(self.folder)
        if marker is None or differences_from(marker, self.settings):
            found = marker or adopt(self.folder, self.command, self.settings)
            write_marker(self.folder, self._marker(found.files if found else {}, finished=False))
            self._write({CONFIG: config})
        elif not (self.folder / CONFIG).exists():
            self._write({CONFIG: config})

    def write_reports(self, contents: Mapping[str, str]) -> None:
        """Write the reports, of which `contents` has all; the main process's part.

        Raises:
            UserError: one of them is there, and the run has not written it; or there is no room.
        """
        _check_own(self.folder, read_marker(self.folder), REPORTS)
        self._write(contents, finished=True)

    def _write(self, contents: Mapping[str, str], *, finished: bool = False) -> None:
        """Write files that the marker names before they are there, whenever the process ends."""
        marker = read_marker(self.folder)
        files = dict(marker.files) if marker else {}
        for name, content in contents.items():
            files[name] = tuple(dict.fromkeys([*files.get(name, ()), digest(content.encode())]))
        was_finished = marker is not None and marker.finished
        write_marker(self.folder, self._marker(files, finished=was_finished))
        for name, content in contents.items():
            write_file(self.folder / name, content)
        if finished:
            write_marker(self.folder, self._marker(files, finished=True))

    def _marker(self, files: Mapping[str, tuple[str, ...]], *, finished: bool) -> Marker:
        return Marker(
            program="dsd_jax",
            version=__version__,
            command=self.command,
            settings=dict(self.settings),
            files=dict(files),
            finished=finished,
        )


@contextmanager
def open_workdir(
    folder: str | os.PathLike, command: str, settings: Mapping[str, Any]
) -> Iterator[Workdir]:
    """Check that the run may write into a folder, and keep other runs out of it meanwhile.

    Nothing is written yet. On several hosts the main process alone looks, and tells the others;
    all must call it together. In a bucket nothing keeps two runs apart.

    Args:
        folder: exists, or is in a bucket.
        command: `evaluate` in a folder of `train` gets the folder `evaluate` in it.
        settings: the config and what else decides the report, JSON values.

    Raises:
        UserError: the folder is in use, or of another run, or has files that no run has written
            where this one would write.
    """
    lock: int | None = None
    told = {"folder": os.fspath(folder), "refusal": "", "is_finished": False}
    try:
        if processes.is_main():
            try:
                chosen = _choose(epath.Path(folder), command)
                told["folder"] = os.fspath(chosen)
                lock = _lock(chosen)
                told["is_finished"] = _examine(chosen, command, settings)
            except UserError as error:
                told["refusal"] = str(error)
        told = json.loads(processes.broadcast_text_from_main(json.dumps(told)))
        if told["refusal"]:
            raise UserError(told["refusal"])
        yield Workdir(epath.Path(told["folder"]), command, settings, told["is_finished"])
    finally:
        if lock is not None:
            os.close(lock)


def _choose(folder: epath.Path, command: str) -> epath.Path:
    """Return the folder for a command's files; it exists."""
    _check_parts(folder)
    marker = read_marker(folder)
    if command != "evaluate" or marker is None or marker.command != "train":
        return folder
    with storage_errors(f"{folder / 'evaluate'} cannot be written to", REMEDY):
        if not is_remote(folder):
            (folder / "evaluate").mkdir(exist_ok=True)
    return folder / "evaluate"


def _lock(folder: epath.Path) -> int | None:
    """Keep other processes out until the result is closed or this process ends, however it ends.

    None where the file system has no such locks.
    """
    if is_remote(folder):
        return None
    with storage_errors(f"{folder} cannot be opened", REMEDY):
        opened = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return opened
    except BlockingIOError as error:
        os.close(opened)
        raise UserError(
            f"{folder} is in use by another run at this moment; wait for its end, or {REMEDY}."
        ) from error
    except OSError:
        os.close(opened)
        return None


def _examine(folder: epath.Path, command: str, settings: Mapping[str, Any]) -> bool:
    """Return whether the run in a folder is finished.

    Raises:
        UserError: the folder is not for this run.
    """
    _check_parts(folder)
    marker = read_marker(folder) or adopt(folder, command, settings)
    if marker is None:
        _check_own(folder, None, _FILES)
        return False
    if marker.command != command:
        raise UserError(f"{folder} holds a run of {marker.command}, not {command}; {REMEDY}.")
    found = differences_from(marker, settings)
    if found and _holds_results(folder):
        raise UserError(f"{folder} holds a run with {found}; {REMEDY}, or take the same config.")
    if not found and marker.finished and all((folder / name).exists() for name in REPORTS):
        return True
    _check_own(folder, marker, (CONFIG, *REPORTS) if found else REPORTS)
    return False


def _check_parts(folder: epath.Path) -> None:
    """Refuse links, which lead out of the folder, and folders in the place of files."""
    if is_remote(folder):
        return
    for name in (*_FOLDERS, *_FILES):
        place = Path(folder, name)
        if not place.exists() and not place.is_symlink():
            continue
        links = [place] if place.is_symlink() else [p for p in place.rglob("*") if p.is_symlink()]
        if links:
            raise UserError(
                f"{links[0]} is a link to {os.readlink(links[0])}; a run writes into its --workdir "
                f"alone: put what it leads to in its place, or {REMEDY}."
            )
        if name in _FOLDERS and not place.is_dir():
            raise UserError(f"{place} is no folder; move it away, or {REMEDY}.")
        if name in _FILES and not place.is_file():
            raise UserError(f"{place} is no regular file; move it away, or {REMEDY}.")


def _check_own(folder: epath.Path, marker: Marker | None, names: tuple[str, ...]) -> None:
    """Refuse files of these names with a content that the run has not written."""
    for name in names:
        place = folder / name
        written = marker.files.get(name, ()) if marker else ()
        if place.exists() and digest(place.read_bytes()) not in written:
            raise UserError(
                f"{place} was not written by this run, which would overwrite it; move it away, or "
                f"{REMEDY}."
            )


def _holds_results(folder: epath.Path) -> bool:
    """Return whether a run got further there than to say what it is."""
    names = ("checkpoints", "prompts", "scores", _LOG, *REPORTS)
    return any((folder / name).exists() for name in names)
