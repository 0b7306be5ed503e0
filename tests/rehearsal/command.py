"""A command as a user types it: in a process of its own, timed, and perhaps stopped on its way."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

LONGEST = 3600  # seconds
_LOOK_EVERY = 0.1  # seconds between looks at what a command has said


class Stop(NamedTuple):
    """When a command is sent a signal: once its stderr has something that matches `said`."""

    said: str
    signal: signal.Signals


class Done(NamedTuple):
    """How a command ended.

    Attributes:
        code: its exit code; below zero the signal that ended it.
        seconds: it took.
        cpu_seconds: that it and its children worked.
        gigabytes: the most that one of its processes held at a time.
        out, err: all that it said.
    """

    code: int
    seconds: float
    cpu_seconds: float
    gigabytes: float
    out: str
    err: str


def run_command(
    words: Sequence[str],
    folder: Path,
    log: Path,
    environment: Mapping[str, str],
    stop: Stop | None = None,
) -> Done:
    """Run a command to its end, or until it is told to stop.

    Args:
        words: of the command line.
        folder: that it runs in.
        log: what it says goes to the files `log`.out and `log`.err.
        environment: of the process.
        stop: when it is sent a signal; None for never.
    """
    files = [log.with_suffix(suffix) for suffix in (".out", ".err")]
    started = time.monotonic()
    with files[0].open("wb") as out, files[1].open("wb") as err:
        process = subprocess.Popen(
            words,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
    status, usage = _wait(process.pid, files[1], stop, started + LONGEST)
    process.returncode = os.waitstatus_to_exitcode(status)
    return Done(
        process.returncode,
        time.monotonic() - started,
        usage.ru_utime + usage.ru_stime,
        usage.ru_maxrss / 1e6,
        *(file.read_text(errors="replace") for file in files),
    )


def _wait(pid: int, err: Path, stop: Stop | None, deadline: float) -> tuple:
    """Wait for a process, sending the signal when it is time; return its status and usage."""
    while True:
        found, status, usage = os.wait4(pid, os.WNOHANG)
        if found:
            return status, usage
        if stop and re.search(stop.said, err.read_text(errors="replace")):
            os.killpg(pid, stop.signal)
            stop = None
        if time.monotonic() > deadline:
            os.killpg(pid, signal.SIGKILL)
        time.sleep(_LOOK_EVERY)
