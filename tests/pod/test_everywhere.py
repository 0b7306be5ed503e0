"""One device, eight in every mesh, two hosts with four each: the same losses, prompts, scores."""

from pathlib import Path

import numpy as np
import pytest

from tests.pod.hosts import run


def found(folder: Path, procs: int, devices: int, fsdp: int) -> dict[str, np.ndarray]:
    done = run(procs, devices, "tests.pod.everything", folder, fsdp)
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
