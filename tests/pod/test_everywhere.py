"""One device, eight in every mesh, two hosts with four each: the same losses, prompts, scores."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]


def found(folder: Path, procs: int, devices: int, fsdp: int) -> dict[str, np.ndarray]:
    pod = ["--procs", str(procs), "--devices", str(devices)]
    module = ["python", "-m", "tests.pod.everything", str(folder), str(fsdp)]
    done = subprocess.run(
        ["bash", str(ROOT / "launch" / "run.sh"), "local", *pod, "--", *module],
        env={**os.environ, "DSD_VENV": sys.prefix, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{procs * devices} devices" in done.stdout + done.stderr
    assert "full rematerialization" not in done.stdout  # XLA's word for moving what need not move
    return dict(np.load(folder / "found.npz"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return found(tmp_path_factory.mktemp("alone"), 1, 1, 1)


@pytest.mark.parametrize(
    ("procs", "devices", "fsdp"),
    [(1, 8, 1), (1, 8, 2), (1, 8, 4), (2, 4, 2)],
    ids=["8x1", "4x2", "2x4", "two-hosts-4x2"],
)
def test_the_same_everywhere(alone, tmp_path, procs, devices, fsdp):
    here = found(tmp_path, procs, devices, fsdp)
    assert here.keys() == alone.keys()
    for name, expected in alone.items():
        # Held-out losses are in units of small margins, scores are sums of 64 squares.
        tolerance = 1e-5 if name.startswith("prompts") else 1e-4
        np.testing.assert_allclose(here[name], expected, rtol=0, atol=tolerance, err_msg=name)
