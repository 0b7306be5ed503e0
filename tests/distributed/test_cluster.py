"""What the environment says of the processes of a run, and where it says nothing that can be."""

import os

import pytest

from dsd_jax.distributed import processes
from dsd_jax.distributed.cluster import Place, find_place, warn_of_idle_tasks
from dsd_jax.errors import UserError

IN_KUBERNETES = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "1"}
GIVEN = {"DSD_COORDINATOR": "run-0.run:8476", "DSD_PROCESSES": "2", "DSD_PROCESS": "1"}
BATCH = {"SLURM_JOB_ID": "12", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "4"}
STEP = {**BATCH, "SLURM_STEP_ID": "0", "SLURM_STEP_NODELIST": "localhost"}
SRUN = {**STEP, "SLURM_STEP_NUM_TASKS": "4"}
FEWER = {**STEP, "SLURM_STEP_NUM_TASKS": "2"}  # srun --preserve-env -n 2 in a job of 4
SHELL = {**STEP, "SLURM_STEP_NUM_TASKS": "1"}  # of salloc


@pytest.fixture
def environment(monkeypatch):
    for name in [n for n in os.environ if n.startswith(("SLURM_", "TPU_", "MEGASCALE_", "DSD_"))]:
        monkeypatch.delenv(name)

    def set_all(names):
        for name, value in names.items():
            monkeypatch.setenv(name, value)

    return set_all


@pytest.mark.parametrize(
    ("names", "because"),
    [
        ({}, None),
        ({"DSD_CLUSTER": "tpu"}, "DSD_CLUSTER=tpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES=a,b"),
        ({"TPU_PROCESS_ADDRESSES": "a:8476,b:8476"}, "TPU_PROCESS_ADDRESSES=a:8476,b:8476"),
        ({**IN_KUBERNETES, "TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES=a,b"),
        ({**IN_KUBERNETES, "MEGASCALE_NUM_SLICES": "2"}, "MEGASCALE_NUM_SLICES=2"),
        ({**IN_KUBERNETES, "MEGASCALE_NUM_SLICES": "1"}, None),
        (IN_KUBERNETES, None),  # pods that may have nothing to do with each other
        ({"SLURM_JOB_ID": "1", "SLURM_NTASKS": "2"}, None),  # an allocation
        (BATCH, None),
        (SHELL, None),
        (SRUN, "SLURM_STEP_NUM_TASKS=4"),
        ({**SRUN, "DSD_CLUSTER": "slurm"}, "DSD_CLUSTER=slurm"),
        ({**FEWER, "DSD_CLUSTER": "slurm"}, "DSD_CLUSTER=slurm"),
        ({**SHELL, "SLURM_NTASKS": "1", "DSD_CLUSTER": "slurm"}, "DSD_CLUSTER=slurm"),
    ],
)
def test_clusters_are_recognised(environment, names, because):
    environment(names)
    place = find_place()
    assert (place and place.because) == because


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"DSD_COORDINATOR": "h:1"}, "DSD_COORDINATOR is set but DSD_PROCESSES is not"),
        ({"DSD_CLUSTER": "moon"}, "DSD_CLUSTER is 'moon'; expected one of tpu, slurm"),
        ({**BATCH, "DSD_CLUSTER": "slurm"}, "srun did not start this process"),
        ({**SHELL, "DSD_CLUSTER": "slurm"}, "srun did not start this process"),
        (
            {**SRUN, "SLURM_STEP_NUM_TASKS": "4(x2)"},
            "SLURM_STEP_NUM_TASKS is '4.x2.'",
        ),
        ({**GIVEN, "DSD_PROCESSES": "two"}, "DSD_PROCESSES is 'two', expected a whole number"),
        ({**GIVEN, "DSD_PROCESSES": "0"}, "DSD_PROCESSES is 0, expected 1 or more"),
        ({**GIVEN, "DSD_PROCESS": "-1"}, "DSD_PROCESS is '-1', expected a whole number"),
        ({**GIVEN, "DSD_PROCESS": "2"}, "expected a number from 0 to 1"),
        ({**GIVEN, "DSD_PROCESS": "9" * 5000}, "DSD_PROCESS is '999"),
        ({**GIVEN, "DSD_COORDINATOR": "here"}, "DSD_COORDINATOR is 'here', expected text of"),
        ({**GIVEN, "DSD_COORDINATOR": ""}, "DSD_COORDINATOR is '', expected text of"),
    ],
)
def test_what_cannot_be_is_refused(environment, names, message):
    environment(names)
    with pytest.raises(UserError, match=message):
        find_place()


@pytest.mark.parametrize("names", [BATCH, SHELL])
def test_who_runs_alone_in_slurm_is_told(environment, names):
    environment(names)
    with pytest.warns(UserWarning, match="Slurm has 4 tasks for this job.*it runs alone"):
        warn_of_idle_tasks()


def test_a_given_place_is_not_looked_for(environment, monkeypatch):
    """As `launch/run.sh gke --gpu` has it: in Kubernetes, without the package `kubernetes`."""
    calls, listening = [], []
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **k: calls.append((a, k)))
    monkeypatch.setattr("dsd_jax.distributed.failure.watch_others", lambda: listening.append(True))
    environment({**IN_KUBERNETES, **GIVEN})
    assert find_place() == Place(**{**GIVEN, "DSD_PROCESSES": 2, "DSD_PROCESS": 1})
    processes.join()
    ((arguments, options),) = calls
    assert arguments == ("run-0.run:8476", 2, 1) and listening
    assert options["cluster_detection_method"] == "deactivate"


@pytest.mark.parametrize("named", [{}, {"DSD_CLUSTER": "slurm"}])
def test_a_step_of_fewer_tasks_than_the_job_waits_for_no_more(environment, monkeypatch, named):
    """JAX itself reads SLURM_NTASKS."""
    calls = []
    monkeypatch.setattr("jax.distributed.initialize", lambda *a, **k: calls.append(k))
    monkeypatch.setattr("dsd_jax.distributed.failure.watch_others", lambda: None)
    environment({**FEWER, **named})
    processes.join()
    assert [options["num_processes"] for options in calls] == [2]


def test_a_cluster_that_is_not_there_is_one_sentence(environment):
    environment({"TPU_WORKER_HOSTNAMES": "a,b"})
    with pytest.raises(UserError, match="TPU_WORKER_HOSTNAMES=a,b says .* JAX finds no such"):
        processes.join()
