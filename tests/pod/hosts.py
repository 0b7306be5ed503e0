"""Processes that play the hosts of a pod."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def start(procs: int, devices: int, module: str, *arguments: object) -> subprocess.Popen:
    """`python -m MODULE ARGUMENTS` on every host, all in one process group of their own."""
    pod = ["--procs", str(procs), "--devices", str(devices)]
    return subprocess.Popen(
        ["bash", str(ROOT / "launch" / "run.sh"), "local", *pod]
        + ["--", "python", "-m", module, *map(str, arguments)],
        env={**os.environ, "DSD_VENV": sys.prefix, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def run(procs: int, devices: int, module: str, *arguments: object) -> subprocess.CompletedProcess:
    """As `start`; asserts that all end well."""
    pod = start(procs, devices, module, *arguments)
    out, error = pod.communicate(timeout=500)
    assert pod.returncode == 0, out + error
    return subprocess.CompletedProcess(pod.args, pod.returncode, out, error)
