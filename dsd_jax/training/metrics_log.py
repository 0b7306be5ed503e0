"""A run's log: JSON lines, of which a kill loses none that a checkpoint comes after."""

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


class Log:
    """One file of JSON lines, which are added to those of earlier runs; a context manager.

    On a disk a line is written at once. In a bucket the whole object is replaced, so lines wait for
    `flush`, or half a minute. Call `flush` before each checkpoint: what is lost by a kill after it
    belongs to steps that the resumed run takes, and logs, again.

    Args:
        file: None for a log that keeps nothing.
    """

    def __init__(self, file: str | os.PathLike | None):
        """Nothing is read or written yet."""
        self._file = None if file is None else epath.Path(file)
        self._waiting: list[str] = []
        self._written = time.monotonic()

    def __enter__(self) -> "Log":
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Write what waits."""
        self.flush()

    def write(self, line: dict[str, Any]) -> None:
        """Add a line, in which null stands for a number that is not finite: JSON has none."""
        self._waiting.append(json.dumps(_finite(line)) + "\n")
        recently = time.monotonic() - self._written < _SECONDS_BETWEEN_UPLOADS
        if self._file and not (is_remote(self._file) and recently):
            self.flush()

    def flush(self) -> None:
        """Write all lines that wait.

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
    """Add whole lines to a file: all of them or none, and never to the half of another."""
    with open(file, "ab+", buffering=0) as lines:
        size = lines.seek(0, os.SEEK_END)
        if size:
            lines.seek(size - 1)
            if lines.read(1) != b"\n":  # of a run that was killed while it wrote
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
