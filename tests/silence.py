"""Measures how long a command is silent: the longest time in which it prints nothing.

    python -m tests.silence -- bash launch/run.sh            as in a terminal of 80 columns
    python -m tests.silence --log -- bash launch/run.sh      as in a log

The time before the first output and after the last one count, too.
"""

import argparse
import fcntl
import os
import pty
import selectors
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

END = 400  # characters of the output before a silence that are shown


class Silence(NamedTuple):
    """The longest silence of a command.

    seconds: that it lasted.
    before: the end of what was printed before it.
    output: all that was printed.
    code: the exit code.
    """

    seconds: float
    before: str
    output: str
    code: int


def longest_silence(
    command: Sequence[str], *, terminal: bool, env: Mapping[str, str] | None = None
) -> Silence:
    """Run a command, with stdout and stderr in one terminal or one pipe."""
    if terminal:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 80, 0, 0))
    else:
        ours, theirs = os.pipe()
    environment = {**os.environ, "TERM": "xterm", **(env or {})}
    last, longest, before, output = time.monotonic(), 0.0, b"", b""
    with subprocess.Popen(
        command, stdout=theirs, stderr=theirs, stdin=subprocess.DEVNULL, env=environment
    ) as process:
        os.close(theirs)
        while True:
            part = _read(ours)
            now = time.monotonic()
            if now - last > longest:
                longest, before = now - last, output[-END:]
            last, output = now, output + part
            if not part:
                break
    os.close(ours)
    return Silence(
        longest,
        before.decode(errors="replace"),
        output.decode(errors="replace"),
        process.returncode,
    )


def _read(descriptor: int) -> bytes:
    """Return what comes next; nothing at the end, which a terminal says by an error."""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        selector.select()
    try:
        return os.read(descriptor, 65536)
    except OSError:
        return b""


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", action="store_true", help="into a pipe instead of a terminal")
    parser.add_argument("--keep", metavar="FILE", help="write what the command printed there")
    parser.add_argument("command", nargs="+")
    flags = parser.parse_args()
    found = longest_silence(flags.command, terminal=not flags.log)
    if flags.keep:
        with open(flags.keep, "w") as file:
            file.write(found.output)
    print(f"exit code {found.code}; longest silence {found.seconds:.1f} s, after:")
    print(found.before.replace("\r", "\n").rstrip())
    sys.exit(found.code)


if __name__ == "__main__":
    main()
