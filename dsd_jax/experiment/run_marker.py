"""`run.json`: what the run in a folder is, and which of the files there it has written."""

import hashlib
import os
from collections.abc import Mapping
from typing import Any, Literal

from etils import epath

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import parse_json, read_regular_file
from dsd_jax.io.storage import is_remote, write_file
from dsd_jax.io.validation import Checked, List, parse
from dsd_jax.training.same_run import differences
from dsd_jax.version import __version__

MARKER, CONFIG = "run.json", "config.json"
REPORTS = ("report.json", "report.md", "report.html")
REMEDY = "name another --workdir"
# Fields that say how a run is computed, not what: a stopped run may go on elsewhere.
_HOW = ("cache", "cpu_devices", "fsdp")


class Marker(Checked):
    """The content of `run.json`.

    Attributes:
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


def read_marker(folder: epath.Path) -> Marker | None:
    """Return what `run.json` says; None where there is none.

    Raises:
        UserError: no run wrote it, or it is damaged.
    """
    file = folder / MARKER
    if not file.exists():
        return None
    content = file.read_bytes() if is_remote(folder) else read_regular_file(file)
    remedy = f"it is not what a run writes: {REMEDY}"
    try:
        values = parse_json(content, os.fspath(file))
    except UserError as error:
        raise UserError(f"{str(error).removesuffix('.')}; {remedy}.") from error
    return parse(Marker, values, os.fspath(file), remedy)


def write_marker(folder: epath.Path, marker: Marker) -> None:
    """Write `run.json`."""
    write_file(folder / MARKER, marker.model_dump_json(indent=1) + "\n")


def differences_from(marker: Marker, settings: Mapping[str, Any]) -> str:
    """Return in words how the run that the marker is of differs from that of the settings."""
    there, here = (
        {name: value for name, value in one.items() if name not in _HOW}
        for one in (marker.settings, settings)
    )
    return differences(there, here)


def adopt(folder: epath.Path, command: str, settings: Mapping[str, Any]) -> Marker | None:
    """Return a marker for a folder that an earlier version wrote, which left none."""
    names = [name for name in (CONFIG, *REPORTS) if (folder / name).exists()]
    if CONFIG not in names:
        return None
    try:
        config = parse_json((folder / CONFIG).read_bytes(), CONFIG)
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
        files={name: (digest((folder / name).read_bytes()),) for name in names},
        finished=len(names) == 1 + len(REPORTS),
    )
    shared = {name: settings.get(name) for name in config}
    return None if differences_from(marker, shared) else marker


def digest(content: bytes) -> str:
    """Return the SHA-256 of a file's content."""
    return hashlib.sha256(content).hexdigest()
