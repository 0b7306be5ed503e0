"""Outputs that fail, terminals that lack letters, interruptions: a code and at most one line."""

import errno
import io
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from dsd_jax.cli import run_command, tell
from dsd_jax.errors import DeviceError, Preempted, UserError
from tests.mutations.mutate import count, generator, limited

TEXTS = [
    "plain", "caf\u00e9", "\U0001f408", "\udce9", "\ud83d", "a\nb", "a\r\nb", "\x1b[2J", "a\0b", "",
    " ", "\u2028", "x" * 100_000, "\ufeff", "{} {", "%s%n", "\x85", "\u202e",
]  # fmt: skip
CODES = {UserError: 2, DeviceError: 75, Preempted: 0, KeyboardInterrupt: 130}


class Failing(io.RawIOBase):
    """A file that fails after some bytes."""

    def __init__(self, room: int, number: int):
        self.room, self.number, self.content = room, number, b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        if self.room < len(data):
            raise OSError(self.number, os.strerror(self.number))
        self.room -= len(data)
        self.content += bytes(data)
        return len(data)


def stream(rng: random.Random) -> io.TextIOWrapper:
    number = rng.choice([errno.EPIPE, errno.ENOSPC, errno.EIO, errno.EBADF])
    raw = Failing(rng.choice([0, 1, 100, 10**9, 10**9]), number)
    encoding = rng.choice(["utf-8", "ascii", "latin-1", "cp1252", "utf-16"])
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, line_buffering=rng.random() < 0.5)


def test_outputs(monkeypatch, tried):
    rng = generator("outputs")
    for _ in range(count(40)):
        out, err = stream(rng), stream(rng)
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", err)
        texts = rng.choices(TEXTS, k=3)
        ending = rng.choice([None, None, *CODES])

        def main(argv, texts=texts, ending=ending):
            for text in texts:
                print(text)
                tell("warning", text)
            if ending:
                raise ending(texts[0])

        before = signal.getsignal(signal.SIGINT)
        with limited(), pytest.raises(SystemExit) as end:
            run_command(main, [])
        signal.signal(signal.SIGINT, before)
        codes = {CODES.get(ending, 0), 2, 141}
        assert end.value.code in codes, (texts, ending, end.value.code)
        written = err.buffer.raw.content.decode(err.encoding, errors="replace")
        assert "Traceback" not in written
        tried.add(refused=end.value.code == 2)


SLOW = """
import signal, sys, time
from dsd_jax.cli import run_command
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of shells ignore it
def main(argv):
    print("ready", flush=True)
    for i in range(3000):
        time.sleep(0.01)
run_command(main)
"""


def test_interruptions(tried):
    rng = generator("interruptions")
    for _ in range(min(count(2), 20)):
        done = subprocess.Popen(
            [sys.executable, "-c", SLOW],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert done.stdout.readline() == "ready\n"
        for _ in range(rng.choice((1, 2, 3))):
            time.sleep(rng.choice((0, 0.001, 0.02)))
            done.send_signal(signal.SIGINT)
        _, error = done.communicate(timeout=30)
        assert done.returncode in (130, -signal.SIGINT)
        assert "Traceback" not in error and error.count("\n") <= 1
        tried.add(refused=True)
