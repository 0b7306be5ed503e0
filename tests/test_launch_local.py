"""The launch script on this machine: a command in the environment, and a simulated pod."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
SPACED = "--name=two words; $HOME 'quoted'"


def local(*command: str, **environment: str) -> subprocess.Popen:
    """Two simulated hosts in the environment of the tests."""
    return subprocess.Popen(
        ["bash", str(ROOT / "launch/run.sh"), "local", "--procs", "2", "--", *command],
        env={**os.environ, "DSD_VENV": sys.prefix, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_local_processes_know_their_place(tmp_path):
    show = (
        "import os, sys\n"
        "print(os.environ['DSD_PROCESS'], os.environ['DSD_PROCESSES'], *sys.argv[1:])"
    )
    job = local("python", "-c", show, SPACED)
    out, error = job.communicate(timeout=60)
    assert job.returncode == 0, error
    assert sorted(out.splitlines()) == [f"[0] 0 2 {SPACED}", f"[1] 1 2 {SPACED}"]


def test_sigterm_reaches_a_command_that_runs_here(tmp_path):
    """Slurm watches the launch script: had it ended first, the command would be killed."""
    wait = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"pathlib.Path({str(tmp_path)!r}, 'ready').touch(); time.sleep(60)"
    )
    job = subprocess.Popen(
        ["bash", str(ROOT / "launch/run.sh"), "here", "--", "python", "-c", wait],
        env={**os.environ, "DSD_VENV": sys.prefix},
    )
    while not (tmp_path / "ready").exists():
        assert job.poll() is None
        time.sleep(0.05)
    job.terminate()
    assert job.wait(timeout=30) == 143


def test_local_stops_all_if_one_fails():
    one = 'import os, sys, time; os.environ["DSD_PROCESS"] == "1" and sys.exit(3); time.sleep(60)'
    started = time.monotonic()
    job = local("python", "-c", one)
    job.communicate(timeout=50)
    assert job.returncode == 3 and time.monotonic() - started < 30


def test_local_hands_sigterm_to_all(tmp_path):
    wait = (
        "import os, signal, sys, time, pathlib\n"
        f"place = pathlib.Path({str(tmp_path)!r}) / os.environ['DSD_PROCESS']\n"
        "signal.signal(signal.SIGTERM, lambda *_: (place.write_text('told'), sys.exit(0)))\n"
        "place.write_text('ready'); time.sleep(60)"
    )
    job = local("python", "-c", wait)
    places = [tmp_path / "0", tmp_path / "1"]
    while not all(p.exists() and p.read_text() == "ready" for p in places):
        assert job.poll() is None
        time.sleep(0.05)
    job.send_signal(signal.SIGTERM)
    job.communicate(timeout=30)
    assert job.returncode == 0
    assert [p.read_text() for p in places] == ["told", "told"]
