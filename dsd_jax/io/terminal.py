"""Text for a terminal: one-line messages on stderr, progress, and an output that can fail."""

import contextlib
import difflib
import io
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_MAX_SHOWN = 60  # characters of a value in a message


class OutputError(Exception):
    """Standard output can't be written to; the cause, an `OSError`, says why."""


def printable(text: str) -> str:
    r"""Return text in one line, whose control characters and half surrogate pairs are escapes.

    So a name with a line break, or one that clears a terminal, is shown with `\n` or `\x1b`.
    """
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def shorten(value: object) -> str:
    """Return the value as Python shows it, in one line of limited length."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # whole numbers of thousands of digits; deep nesting
        text = f"a {type(value).__name__}"
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."


def shorten_path(path: str, most: int) -> str:
    """Return a path in one line of at most `most` characters: its end, after three points."""
    shown = printable(path)
    if len(shown) <= most:
        return shown
    end = shown[3 - most :]
    return "..." + end[max(end.find("/"), 0) :]  # from a slash on, if there is one


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """Return the question for the known name that is closest; "" where none is close."""
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]}?" if close else ""


def tell(kind: str, message: object) -> None:
    """Print one line `kind: message` on stderr, whatever line breaks the message has."""
    line = " ".join(part.strip() for part in str(message).split("\n"))
    say(f"{kind}: {printable(line)}")


def say(line: str) -> None:
    """Print a line on stderr, above the progress bars there, if any."""
    if "tqdm" not in sys.modules:
        print(line, file=sys.stderr, flush=True)
        return
    from tqdm import tqdm

    with tqdm.external_write_mode(file=sys.stderr):
        print(line, file=sys.stderr, flush=True)


def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning for a user, who has no use for the place in our code."""
    tell("warning", message)


def output_width() -> int:
    """Return how many letters a line of stdout may have: 80, or more in a wider terminal."""
    try:
        wide = bool(sys.stdout.isatty())
    except (AttributeError, ValueError):  # no stdout, or a closed one
        wide = False
    return max(80, shutil.get_terminal_size().columns) if wide else 80


def shows_progress(progress: bool | None = None) -> bool:
    """Return whether to show progress: as asked, or where somebody watches.

    Args:
        progress: as asked; None is yes in a terminal and in a notebook, no in a file or a pipe.
    """
    if progress is not None:
        return progress
    return in_notebook() or bool(sys.stderr and sys.stderr.isatty())


def in_notebook() -> bool:
    """Return whether this is the process of a notebook (Jupyter, Colab, VS Code)."""
    module = sys.modules.get("IPython")  # a notebook has imported it
    shell = module.get_ipython() if module else None
    return hasattr(shell, "kernel")


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
        if isinstance(stream, io.TextIOWrapper):  # not so where a notebook or a test replaced it
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
