"""A pod simulated by `launch/run.sh local` is stopped and resumed: the same prompts to the bit."""

from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.pod.hosts import run


def learn(folder: Path, procs: int, devices: int, *arguments: int) -> CompletedProcess:
    return run(procs, devices, "tests.pod.few_shot_host", folder, *arguments)


def prompts(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "prompts" / "prompts.safetensors")


@pytest.fixture(scope="module")
def pod(tmp_path_factory) -> Path:
    """What two hosts with two devices each learn in one go."""
    folder = tmp_path_factory.mktemp("pod")
    learn(folder, 2, 2)
    return folder


def test_sigterm_to_one_host_stops_both_and_they_resume_to_the_bit(pod, tmp_path):
    stopped = learn(tmp_path, 2, 2, 5)
    told = [line for line in stopped.stdout.splitlines() if "resume with the same command" in line]
    assert sorted(line[:3] for line in told) == ["[0]", "[1]"]
    assert len({line[4:] for line in told}) == 1  # at the same step
    assert not (tmp_path / "prompts").exists()
    learn(tmp_path, 2, 2)
    expected = prompts(pod)
    for name, found in prompts(tmp_path).items():
        np.testing.assert_array_equal(found, expected[name])
