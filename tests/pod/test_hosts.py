"""Pods simulated by `launch/run.sh local`: the same prompts as on one device; stopped, resumed."""

import os
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
from safetensors.numpy import load_file

from dsd_jax import hosts
from dsd_jax.errors import UserError
from dsd_jax.prompt_files import read_about
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


def test_two_hosts_learn_what_one_device_learns(pod, tmp_path):
    learn(tmp_path, 1, 1)
    alone, together = prompts(tmp_path), prompts(pod)
    assert alone.keys() == together.keys()
    for name, expected in alone.items():
        np.testing.assert_allclose(together[name], expected, rtol=0, atol=1e-5)
    losses = [read_about(folder / "prompts").stated()["held_out"] for folder in (pod, tmp_path)]
    assert losses[0].keys() == losses[1].keys()
    np.testing.assert_allclose(*(list(loss.values()) for loss in losses), rtol=0, atol=1e-4)


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


IN_KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ({}, False),
        ({"DSD_CLUSTER": "tpu"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"TPU_PROCESS_ADDRESSES": "a:8476,b:8476"}, True),
        ({**IN_KUBERNETES, "TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, True),
        ({**IN_KUBERNETES, "TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, True),
        ({**IN_KUBERNETES, "TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "1"}, False),
        (IN_KUBERNETES, False),  # pods that may have nothing to do with each other
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, False),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, False),
    ],
)
def test_clusters_are_recognised(names, expected, monkeypatch):
    for name in [n for n in os.environ if n.startswith(("SLURM_", "TPU_", "MEGASCALE_", "DSD_"))]:
        monkeypatch.delenv(name)
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    assert hosts.in_cluster() is expected


def test_a_given_place_is_not_looked_for(monkeypatch):
    """As `launch/run.sh gke --gpu` has it: in Kubernetes, without the package `kubernetes`."""
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **k: calls.append((a, k)))
    place = {"DSD_COORDINATOR": "run-hosts-0-0.run:8476", "DSD_PROCESSES": "2", "DSD_PROCESS": "1"}
    for name, value in {**IN_KUBERNETES, **place}.items():
        monkeypatch.setenv(name, value)
    hosts.join()
    how = {"cluster_detection_method": "deactivate"}
    assert calls == [(("run-hosts-0-0.run:8476", 2, 1), how)]


def test_half_an_address_and_unknown_clusters_are_refused(monkeypatch):
    monkeypatch.setenv("DSD_COORDINATOR", "127.0.0.1:1")
    with pytest.raises(UserError, match="DSD_COORDINATOR is set but DSD_PROCESSES is not"):
        hosts.join()
    monkeypatch.setenv("DSD_CLUSTER", "moon")
    with pytest.raises(UserError, match="DSD_CLUSTER is 'moon'; expected one of tpu, slurm"):
        hosts.in_cluster()
