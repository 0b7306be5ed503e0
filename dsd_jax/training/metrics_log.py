"""A run's log: JSON lines, of which a kill loses none written before a checkpoint."""

import json
import math
import os
import time
from contextlib import suppress
from typing import Any

from etils import epath

from dsd_jax.io.storage import is_remote, storage_errors, write_file

# Objects in buckets can't be appended to, and not be replaced more often than once a second.
_SECONDS_BETWEEN_UPLOADS = 30.0


class MetricsLog:
    """A context manager that appends JSON lines to a file.

    On a disk a line is written at once. In a bucket the whole object is replaced, so lines wait for
    `flush`, or half a minute. Call `flush` before each checkpoint: lines that a kill loses after it
    belong to steps that the resumed run repeats.

    Args:
        file: where, or None to drop all lines.
    """

    def __init__(self, file: str | os.PathLike | None):
        """Start without reading or writing."""
        self._file = None if file is None else epath.Path(file)
        self._waiting: list[str] = []
        self._written = time.monotonic()

    def __enter__(self) -> "MetricsLog":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write the waiting lines."""
        self.flush()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line, with null for numbers that are not finite, which JSON lacks."""
        self._waiting.append(json.dumps(_finite(line)) + "\n")
        recently = time.monotonic() - self._written < _SECONDS_BETWEEN_UPLOADS
        if self._file and not (is_remote(self._file) and recently):
            self.flush()

    def flush(self) -> None:
        """Write the waiting lines.

        Raises:
            UserError: there is no room, or writing is not allowed.
        """
        if not (self._file and self._waiting):
            return
        text = "".join(self._waiting)
        with storage_errors(f"{self._file} cannot be written"):
            if is_remote(self._file):
                earlier = self._file.read_text() if self._file.exists() else ""
                write_file(self._file, earlier + text)
            else:
                _append(os.fspath(self._file), text.encode())
        self._waiting.clear()
        self._written = time.monotonic()


def _append(file: str, text: bytes) -> None:
    """Append lines to a file, all or none, after the end of its last line."""
    with open(file, "ab+", buffering=0) as lines:
        size = lines.seek(0, os.SEEK_END)
        if size:
            lines.seek(size - 1)
            if lines.read(1) != b"\n":  # a run was killed while it wrote
                text = b"\n" + text
        try:
            while text:
                text = text[lines.write(text) :]
        except OSError:
            with suppress(OSError):  # a disk that is full takes a shorter file
                lines.truncate(size)
            raise


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
