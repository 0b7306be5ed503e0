"""What a command writes to its terminal: lines on stderr, and an output that can fail."""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from dsd_jax.io.printable import printable


class OutputError(Exception):
    """Standard output can't be written to; the cause, an `OSError`, says why."""


def tell(kind: str, message: object) -> None:
    """Print one line `kind: message` on stderr, whatever line breaks the message has."""
    line = " ".join(part.strip() for part in str(message).split("\n"))
    print(f"{kind}: {printable(line)}", file=sys.stderr, flush=True)


def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning for a user, who has no use for the place in our code."""
    tell("warning", message)


@contextlib.contextmanager
def guarded_terminal() -> Iterator[None]:
    """Make faults of stdout `OutputError`s, which no other file's can be taken for.

    Those of stderr are passed over: a log that is full is no reason to end a run. Letters that a
    terminal's encoding lacks are written as escapes.
    """
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = _Output(before[0]), _Messages(before[1])
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OutputError):  # Python itself would fail to write it out
                stream.flush()
        sys.stdout, sys.stderr = before


class _Output:
    """A stream that raises `OutputError`; without a file (closed by the shell) it keeps nothing."""

    def __init__(self, stream: TextIO | None):
        self._stream = stream
        if hasattr(stream, "reconfigure"):  # not so where a notebook or a test replaced it
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        return self._call("write", text) or len(text)

    def flush(self) -> None:
        self._call("flush")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _call(self, method: str, *arguments: str) -> Any:
        if self._stream is None:
            return None
        try:
            return getattr(self._stream, method)(*arguments)
        except OSError as error:
            _discard(self._stream)
            return self._fail(error)

    def _fail(self, error: OSError) -> None:
        raise OutputError("standard output can't be written to") from error


class _Messages(_Output):
    """A stream whose faults are passed over."""

    def _fail(self, error: OSError) -> None:
        del error


def _discard(stream: TextIO) -> None:
    """Send what `stream` holds, and all that follows, nowhere."""
    with contextlib.suppress(OSError, ValueError):  # a stream without a file
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
