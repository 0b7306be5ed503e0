"""Processes that play the hosts of a pod."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(procs: int, devices: int, module: str, *arguments: object) -> subprocess.CompletedProcess:
    """`python -m MODULE ARGUMENTS` on every host; asserts that all end well."""
    pod = ["--procs", str(procs), "--devices", str(devices)]
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "run.sh"), "local", *pod]
        + ["--", "python", "-m", module, *map(str, arguments)],
        env={**os.environ, "DSD_VENV": sys.prefix, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done
