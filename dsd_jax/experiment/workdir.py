"""The workdir of a run: it belongs to one run at a time, and no other file in it is overwritten.

A run's first file, `run.json`, is its marker: what the run is, and the SHA-256 of each file that a
later start might write again. A file that the marker does not name was not written by the run, and
is left alone.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from etils import epath

from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.io.local_files import parse_json, read_regular_file
from dsd_jax.io.storage import is_remote, storage_errors, write_file
from dsd_jax.io.validation import Checked, List, parse
from dsd_jax.training.checkpoint_digests import differences
from dsd_jax.version import __version__

REPORTS = ("report.json", "report.md", "report.html")
_MARKER, _CONFIG, _LOG = "run.json", "config.json", "metrics.jsonl"
_FOLDERS = ("checkpoints", "prompts", "scores", "evaluate", "tensorboard", "profile")
_FILES = (_MARKER, _CONFIG, _LOG, *REPORTS)
_PROMPTS = "--prompts"  # among the settings: {folder: digest} of prompts that evaluate was given
_REMEDY = "name another --workdir"
# Fields that say how a run is computed, not what: a stopped run may go on elsewhere.
_HOW = ("cache", "cpu_devices", "fsdp", "tracker", "profile")


class Marker(Checked):
    """The content of `run.json`.

    Attributes:
        program: always "dsd_jax".
        version: of the program.
        command: such as "train".
        settings: the config and what else decides the report, JSON values.
        files: {name: SHA-256 of each content that the run has written}.
        finished: whether all reports were written once.
    """

    program: Literal["dsd_jax"]
    version: str
    command: str
    settings: dict[str, Any]
    files: dict[str, List[str]]
    finished: bool

    def differences_from(self, settings: Mapping[str, Any]) -> str:
        """Return in words how the run of the marker differs from that of the settings."""
        own, other = (
            {name: value for name, value in values.items() if name not in _HOW}
            for values in (self.settings, settings)
        )
        given = [values.pop(_PROMPTS, {}) for values in (own, other)]
        if given[0] != given[1]:  # by name: nobody knows prompts by the digests that are kept
            names = [list(folders) for folders in given]
            changed = ["those of then", "changed ones"] if names[0] == names[1] else names
            own[_PROMPTS], other[_PROMPTS] = changed
        return differences(own, other)

    def write(self, folder: epath.Path) -> None:
        """Write `run.json`."""
        write_file(folder / _MARKER, self.model_dump_json(indent=1) + "\n")


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

    @property
    def is_begun(self) -> bool:
        """Return whether this very run was begun before."""
        marker = _read_marker(self.folder)
        return marker is not None and not marker.differences_from(self.settings)

    def begin(self, config: str) -> None:
        """Write the marker and `config.json` unless they are there; for the main process alone.

        Raises:
            UserError: they cannot be written.
        """
        marker = _read_marker(self.folder)
        if marker is None or marker.differences_from(self.settings):
            marker = marker or _adopt(self.folder, self.command, self.settings)
            self._marker(marker.files if marker else {}, finished=False).write(self.folder)
            self._write({_CONFIG: config})
        elif not (self.folder / _CONFIG).exists():
            self._write({_CONFIG: config})

    def write_reports(self, contents: Mapping[str, str]) -> None:
        """Write the reports; for the main process alone.

        Args:
            contents: of all `REPORTS` by name.

        Raises:
            UserError: one of them is there, and the run has not written it; or there is no room.
        """
        _check_own(self.folder, _read_marker(self.folder), REPORTS)
        self._write(contents, finished=True)

    def _write(self, contents: Mapping[str, str], *, finished: bool = False) -> None:
        """Write files that the marker names before they are there, whenever the process ends."""
        marker = _read_marker(self.folder)
        files = dict(marker.files) if marker else {}
        for name, content in contents.items():
            files[name] = tuple(dict.fromkeys([*files.get(name, ()), _digest(content.encode())]))
        was_finished = marker is not None and marker.finished
        self._marker(files, finished=was_finished).write(self.folder)
        for name, content in contents.items():
            write_file(self.folder / name, content)
        if finished:
            self._marker(files, finished=True).write(self.folder)

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
    folder: str | os.PathLike[str], command: str, settings: Mapping[str, Any]
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
    outcome = {"folder": os.fspath(folder), "refusal": "", "is_finished": False}
    try:
        if processes.is_main():
            try:
                chosen = _choose_folder(epath.Path(folder), command)
                outcome["folder"] = os.fspath(chosen)
                lock = _lock(chosen)
                outcome["is_finished"] = _check_run(chosen, command, settings)
            except UserError as error:
                outcome["refusal"] = str(error)
        outcome = json.loads(processes.broadcast_text_from_main(json.dumps(outcome)))
        if outcome["refusal"]:
            raise UserError(outcome["refusal"])
        yield Workdir(epath.Path(outcome["folder"]), command, settings, outcome["is_finished"])
    finally:
        if lock is not None:
            os.close(lock)


def _choose_folder(folder: epath.Path, command: str) -> epath.Path:
    """Return the folder for a command's files; it exists."""
    _check_kinds(folder)
    marker = _read_marker(folder)
    if command != "evaluate" or marker is None or marker.command != "train":
        return folder
    with storage_errors(f"{folder / 'evaluate'} cannot be written to", _REMEDY):
        if not is_remote(folder):
            (folder / "evaluate").mkdir(exist_ok=True)
    return folder / "evaluate"


def _lock(folder: epath.Path) -> int | None:
    """Keep other processes out until the result is closed or this process ends, however it ends.

    Returns:
        A file descriptor; None where the file system has no such locks.
    """
    if is_remote(folder):
        return None
    with storage_errors(f"{folder} cannot be opened", _REMEDY):
        descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return descriptor
    except BlockingIOError as error:
        os.close(descriptor)
        raise UserError(
            f"{folder} is in use by another run at this moment; wait for its end, or {_REMEDY}."
        ) from error
    except OSError:
        os.close(descriptor)
        return None


def _check_run(folder: epath.Path, command: str, settings: Mapping[str, Any]) -> bool:
    """Return whether the run in a folder is finished.

    Raises:
        UserError: the folder is not for this run.
    """
    _check_kinds(folder)
    marker = _read_marker(folder) or _adopt(folder, command, settings)
    if marker is None:
        _check_own(folder, None, _FILES)
        return False
    if marker.command != command:
        raise UserError(f"{folder} holds a run of {marker.command}, not {command}; {_REMEDY}.")
    different = marker.differences_from(settings)
    results = ("checkpoints", "prompts", "scores", _LOG, *REPORTS)
    if different and any((folder / name).exists() for name in results):
        raise UserError(
            f"{folder} holds a run with {different}; {_REMEDY}, or take the same config."
        )
    if not different and marker.finished and all((folder / name).exists() for name in REPORTS):
        return True
    _check_own(folder, marker, (_CONFIG, *REPORTS) if different else REPORTS)
    return False


def _check_kinds(folder: epath.Path) -> None:
    """Refuse links, which lead out of the folder, and folders in the place of files."""
    if is_remote(folder):
        return
    for name in (*_FOLDERS, *_FILES):
        path = Path(folder, name)
        if not path.exists() and not path.is_symlink():
            continue
        links = [path] if path.is_symlink() else [p for p in path.rglob("*") if p.is_symlink()]
        if links:
            raise UserError(
                f"{links[0]} is a link to {os.readlink(links[0])}; a run writes into its --workdir "
                f"alone: put what it leads to in its place, or {_REMEDY}."
            )
        if name in _FOLDERS and not path.is_dir():
            raise UserError(f"{path} is no folder; move it away, or {_REMEDY}.")
        if name in _FILES and not path.is_file():
            raise UserError(f"{path} is no regular file; move it away, or {_REMEDY}.")


def _check_own(folder: epath.Path, marker: Marker | None, names: Sequence[str]) -> None:
    """Refuse files of these names with a content that the run has not written."""
    for name in names:
        path = folder / name
        written = marker.files.get(name, ()) if marker else ()
        if path.exists() and _digest(path.read_bytes()) not in written:
            raise UserError(
                f"{path} was not written by this run, which would overwrite it; move it away, or "
                f"{_REMEDY}."
            )


def _read_marker(folder: epath.Path) -> Marker | None:
    """Return the content of `run.json`; None where there is none.

    Raises:
        UserError: no run wrote it, or it is damaged.
    """
    file = folder / _MARKER
    if not file.exists():
        return None
    content = file.read_bytes() if is_remote(folder) else read_regular_file(file)
    remedy = f"it is not what a run writes: {_REMEDY}"
    try:
        values = parse_json(content, os.fspath(file))
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('.')}; {remedy}.") from error
    return parse(Marker, values, os.fspath(file), remedy)


def _adopt(folder: epath.Path, command: str, settings: Mapping[str, Any]) -> Marker | None:
    """Return a marker for a run of an earlier version, which wrote none, if there is one."""
    names = [name for name in (_CONFIG, *REPORTS) if (folder / name).exists()]
    if _CONFIG not in names:
        return None
    try:
        config = parse_json((folder / _CONFIG).read_bytes(), _CONFIG)
    except UserError:
        return None
    # It may have had other fields than now, but not `{}` or the fields of something else.
    if not isinstance(config, dict) or 2 * len(config.keys() & settings.keys()) <= len(settings):
        return None
    marker = Marker(
        program="dsd_jax",
        version=__version__,
        command="train" if (folder / "prompts").exists() else command,
        settings=config,
        files={name: (_digest((folder / name).read_bytes()),) for name in names},
        finished=len(names) == 1 + len(REPORTS),
    )
    shared = {name: settings.get(name) for name in config}
    return None if marker.differences_from(shared) else marker


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
