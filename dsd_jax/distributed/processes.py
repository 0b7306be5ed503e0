"""The processes of a run, one per host of a pod: how they join, agree, share work out."""

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

_SILENCE = 10.0  # seconds of waiting for the others before saying so


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
    options = {"heartbeat_timeout_seconds": failure.HEARTBEAT}
    with _patience(place):
        try:
            if isinstance(place, Detected):
                jax.distributed.initialize(num_processes=place.processes, **options)
            else:
                # Nothing is left to detect. JAX would: it warns in Kubernetes, takes one GPU in
                # Slurm.
                jax.distributed.initialize(
                    place.address,
                    place.processes,
                    place.number,
                    cluster_detection_method="deactivate",
                    **options,
                )
        except (ValueError, RuntimeError) as error:
            raise UserError(_why_alone(place, error)) from error
    failure.listen()


@contextmanager
def _patience(place: Place | Detected) -> Iterator[None]:
    """Say what is waited for, when it takes long: JAX does so in silence, then aborts."""
    if isinstance(place, Detected):
        whom = f"the other processes of the cluster ({place.because})"
    elif place.number:
        whom = f"process 0 of {place.processes} at {place.address}"
    else:
        whom = f"the other {place.processes - 1} processes, which look for this one at " + (
            place.address
        )
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
    """Whether the run has more than one process."""
    return jax.process_count() > 1


def is_main() -> bool:
    """Whether this process is the one that writes files and talks to people."""
    return jax.process_index() == 0


def broadcast_from_main(value: bool) -> bool:
    """The main process's `value`, on all of them; all must call it together."""
    if not are_several():
        return value
    return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def broadcast_text_from_main(text: str) -> str:
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


def max_over_processes(value: int) -> int:
    """The largest `value` of all hosts, on all of them; all must call it together."""
    if not are_several():
        return value
    return int(multihost_utils.process_allgather(np.asarray(value)).max())


def barrier(event: str) -> None:
    """Go on when all hosts have come here; `event` must be the same on all."""
    if are_several():
        multihost_utils.sync_global_devices(event)


def local_range(count: int) -> range:
    """This host's part of `count` things, in their order; all of them where there are too few."""
    if not _is_shared(count):
        return range(count)
    here, every = jax.process_index(), jax.process_count()
    return range(count * here // every, count * (here + 1) // every)


def gather(rows: Tree, count: int) -> Tree:
    """What every host has of `local_range(count)`, leading axis, put together on all of them.

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
