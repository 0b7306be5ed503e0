"""The processes of a run, one per host of a pod: how they join, agree, and who of them writes."""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsd_jax.errors import UserError

_HERE = ("DSD_COORDINATOR", "DSD_PROCESSES", "DSD_PROCESS")
_CLUSTERS = ("tpu", "slurm")


def join() -> None:
    """Join the run's other processes, before JAX is first used; nothing happens where it has none.

    `launch/run.sh` says in the environment where to look: `DSD_COORDINATOR`, `DSD_PROCESSES` and
    `DSD_PROCESS` for processes on this machine, `DSD_CLUSTER` for a cluster that JAX finds its way
    in by itself. Slurm's and GKE's own variables do, too.

    Raises:
        UserError: the variables contradict each other.
    """
    given = [name for name in _HERE if name in os.environ]
    if given:
        if len(given) < len(_HERE):
            missing = next(name for name in _HERE if name not in given)
            raise UserError(f"{given[0]} is set but {missing} is not; set {', '.join(_HERE)}.")
        address, processes, number = (os.environ[name] for name in _HERE)
        jax.distributed.initialize(address, int(processes), int(number))
    elif in_cluster():
        jax.distributed.initialize()


def in_cluster() -> bool:
    """Whether the environment is that of one process of several that JAX can find by itself."""
    named = os.environ.get("DSD_CLUSTER", "")
    if named and named not in _CLUSTERS:
        raise UserError(f"DSD_CLUSTER is '{named}'; expected one of {', '.join(_CLUSTERS)}.")
    several_tpu_hosts = "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
    several_slices = "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    # An interactive allocation has SLURM_JOB_ID, too; only srun's tasks have a number.
    several_tasks = "SLURM_PROCID" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1"
    return bool(named) or several_tpu_hosts or several_slices or several_tasks


def are_several() -> bool:
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to people."""
    return jax.process_index() == 0


def agree(value: bool) -> bool:
    """The main process's `value`, on all of them; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def all_agree(value: bool) -> bool:
    """Whether `value` is true on every host; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def wait(event: str) -> None:
    """Go on when all hosts have come here; `event` must be the same on all."""
    if are_several():
        multihost_utils.sync_global_devices(event)
