"""The processes of a run, one per host of a pod: how they join, agree, share work out."""

import os
from collections.abc import Hashable, Mapping
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsd_jax.errors import UserError

Tree = TypeVar("Tree")
Key = TypeVar("Key", bound=Hashable)

_HERE = ("DSD_COORDINATOR", "DSD_PROCESSES", "DSD_PROCESS")
_CLUSTERS = ("tpu", "slurm")
_TPU_HOSTS = ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES")


def join() -> None:
    """Join the run's other processes, before JAX is first used; nothing happens where it has none.

    `launch/run.sh` says in the environment where to look: `DSD_COORDINATOR`, `DSD_PROCESSES` and
    `DSD_PROCESS` for processes on this machine or in pods with GPUs, `DSD_CLUSTER` for a cluster
    that JAX finds its way in by itself. Slurm's own variables do, too, and those that GKE gives
    to pods with TPUs.

    Raises:
        UserError: the variables contradict each other.
    """
    given = [name for name in _HERE if name in os.environ]
    if given:
        if len(given) < len(_HERE):
            missing = next(name for name in _HERE if name not in given)
            raise UserError(f"{given[0]} is set but {missing} is not; set {', '.join(_HERE)}.")
        address, processes, number = (os.environ[name] for name in _HERE)
        # Nothing is left to detect. JAX would: it warns in Kubernetes, takes one GPU in Slurm.
        jax.distributed.initialize(
            address, int(processes), int(number), cluster_detection_method="deactivate"
        )
    elif in_cluster():
        jax.distributed.initialize()


def in_cluster() -> bool:
    """Whether the environment is that of one process of several that JAX can find by itself."""
    named = os.environ.get("DSD_CLUSTER", "")
    if named and named not in _CLUSTERS:
        raise UserError(f"DSD_CLUSTER is '{named}'; expected one of {', '.join(_CLUSTERS)}.")
    several_tpu_hosts = any("," in os.environ.get(name, "") for name in _TPU_HOSTS)
    several_slices = os.environ.get("MEGASCALE_NUM_SLICES", "1") != "1"  # GKE tells one slice, too
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


def agree_on_text(text: str) -> str:
    """Return the main process's `text` on all hosts; all must call it together."""
    if not are_several():
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(content))))
    padded = np.resize(content, size) if len(content) else np.zeros(size, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode()


def all_agree(value: bool) -> bool:
    """Whether `value` is true on every host; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def largest(value: int) -> int:
    """The largest `value` of all hosts, on all of them; all must call it together."""
    if not are_several():
        return value
    return int(multihost_utils.process_allgather(np.asarray(value)).max())


def wait(event: str) -> None:
    """Go on when all hosts have come here; `event` must be the same on all."""
    if are_several():
        multihost_utils.sync_global_devices(event)


def part(count: int) -> range:
    """This host's part of `count` things, in their order; all of them where there are too few."""
    if not _is_shared(count):
        return range(count)
    here, every = jax.process_index(), jax.process_count()
    return range(count * here // every, count * (here + 1) // every)


def gather(rows: Tree, count: int) -> Tree:
    """What every host has of `part(count)`, leading axis, put together on all of them.

    All must call it together. On one host it is `rows`.
    """
    if not _is_shared(count):
        return rows
    every = jax.process_count()
    ends = [count * host // every for host in range(every + 1)]
    size = max(np.diff(ends))

    def put_together(x: jax.Array | np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        padded = np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)])
        found = multihost_utils.process_allgather(padded)  # (hosts, size, ...)
        return np.concatenate([x[:n] for x, n in zip(found, np.diff(ends), strict=True)])

    return jax.tree.map(put_together, rows)


def gather_each(arrays: Mapping[Key, np.ndarray], count: int) -> dict[Key, np.ndarray]:
    """Gather the arrays of a dict as `gather` does; the keys keep their order and may be anything.

    (A pytree's dict loses its order, and its keys must be of one type.)
    """
    return dict(zip(arrays, gather(list(arrays.values()), count), strict=True))


def _is_shared(count: int) -> bool:
    return are_several() and count >= jax.process_count()
