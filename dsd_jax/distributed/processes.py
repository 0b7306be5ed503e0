"""The processes of a run, one per host: joining, collective operations, and sharing work out."""

import threading
from collections.abc import Hashable, Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from dsd_jax.distributed import failure
from dsd_jax.distributed.cluster import Detected, Place, find_place, warn_of_idle_tasks
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import tell

Tree = TypeVar("Tree")
Key = TypeVar("Key", bound=Hashable)

_SILENCE = 10.0  # seconds of waiting for the others before a message says so


def join() -> None:
    """Join the run's other processes, before JAX is first used; nothing happens where it has none.

    `cluster.find_place` says where they are. May be called again.

    Raises:
        UserError: the environment's variables contradict each other, or there is no such cluster.
    """
    place = find_place()
    if place is None:
        warn_of_idle_tasks()
        return
    if jax.distributed.is_initialized():
        return
    with _message_while_waiting(place):
        try:
            if isinstance(place, Detected):
                jax.distributed.initialize(
                    num_processes=place.processes, heartbeat_timeout_seconds=failure.HEARTBEAT
                )
            else:
                # Nothing is left to detect. JAX would: it warns in Kubernetes, takes one GPU in
                # Slurm.
                jax.distributed.initialize(
                    place.address,
                    place.processes,
                    place.number,
                    cluster_detection_method="deactivate",
                    heartbeat_timeout_seconds=failure.HEARTBEAT,
                )
        except (ValueError, RuntimeError) as error:
            raise UserError(_why_alone(place, error)) from error
    failure.watch_others()


@contextmanager
def _message_while_waiting(place: Place | Detected) -> Iterator[None]:
    """Print which processes are missing when joining takes long; JAX waits in silence."""
    if isinstance(place, Detected):
        whom = f"the other processes of the cluster ({place.because})"
    elif place.number:
        whom = f"process 0 of {place.processes} at {place.address}"
    else:
        others = f"the other {place.processes - 1} processes"
        whom = f"{others}, which look for this one at {place.address}"
    timer = threading.Timer(_SILENCE, tell, ("waiting", f"for {whom}, up to 5 minutes"))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _why_alone(place: Place | Detected, error: Exception) -> str:
    reason = str(error).splitlines()[0].rstrip(".")
    if isinstance(place, Detected):
        return (
            f"{place.because} says that this is one of several hosts, but JAX finds no such "
            f"cluster here ({reason}); run it on all hosts of the cluster, or unset that variable."
        )
    return (
        f"process {place.number} of {place.processes} cannot join the others at {place.address} "
        f"({reason}); name a free port of the first host in DSD_COORDINATOR."
    )


def are_several() -> bool:
    """Return whether the run has more than one process."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Return whether this is process 0, which alone writes files and messages."""
    return jax.process_index() == 0


def broadcast_from_main(value: bool) -> bool:
    """Return the main process's `value` on all processes; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def broadcast_text_from_main(text: str) -> str:
    """Return the main process's `text` on all processes; all must call it together."""
    if not are_several():
        return text
    content = np.frombuffer(text.encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.asarray(len(content))))
    padded = np.resize(content, size) if len(content) else np.zeros(size, np.uint8)
    return bytes(np.asarray(multihost_utils.broadcast_one_to_all(padded))).decode()


def all_agree(value: bool) -> bool:
    """Return whether `value` is true on all processes; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.process_allgather(np.asarray(value)).all())


def max_over_processes(value: int) -> int:
    """Return the largest `value` of all processes; all must call it together."""
    if not are_several():
        return value
    return int(multihost_utils.process_allgather(np.asarray(value)).max())


def barrier(event: str) -> None:
    """Wait until all processes have come here; `event` must be the same on all."""
    if are_several():
        multihost_utils.sync_global_devices(event)


def local_range(count: int) -> range:
    """Return the indices of this process's part of `count` things; all if fewer than processes."""
    if not _is_shared(count):
        return range(count)
    index, processes = jax.process_index(), jax.process_count()
    return range(count * index // processes, count * (index + 1) // processes)


def gather(rows: Tree, count: int) -> Tree:
    """Concatenate the rows of all processes; all must call it together.

    Args:
        rows: a tree of arrays with this process's `local_range(count)` as their leading axis.
        count: rows of all processes together.

    Returns:
        The tree with all `count` rows, on every process.
    """
    if not _is_shared(count):
        return rows
    processes = jax.process_count()
    sizes = np.diff([count * index // processes for index in range(processes + 1)])

    def concatenate(x: jax.Array | np.ndarray) -> np.ndarray:
        x = np.asarray(x)
        padded = np.concatenate([x, np.zeros((max(sizes) - len(x), *x.shape[1:]), x.dtype)])
        parts = multihost_utils.process_allgather(padded)  # (processes, max(sizes), ...)
        return np.concatenate([part[:n] for part, n in zip(parts, sizes, strict=True)])

    return jax.tree.map(concatenate, rows)


def gather_each(arrays: Mapping[Key, np.ndarray], count: int) -> dict[Key, np.ndarray]:
    """Concatenate the arrays of a dict as `gather` does; its keys may be of any types.

    JAX would sort the keys of a pytree's dict, which must be of one type.
    """
    return dict(zip(arrays, gather(list(arrays.values()), count), strict=True))


def _is_shared(count: int) -> bool:
    return are_several() and count >= jax.process_count()
