"""Where arrays live: one mesh, batches split over its devices, everything else on all of them."""

import os
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def simulate_cpu_devices(count: int) -> None:
    """Make the CPU count as `count` devices, before JAX is first used; accelerators don't mind.

    Programs then run one after the other: the threads that carry the simulated devices are as many
    as there are cores, and two programs that wait for each other's threads wait for ever.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:  # by which a launcher says how many
        jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def data_mesh() -> Mesh:
    """All devices in one row, along the axis `data`."""
    return jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """A whole copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
    """The leading axis split over the devices; its length must be a multiple of their number."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Put every leaf on all devices; the hosts of a pod must have the same."""
    return jax.tree.map(lambda x: _place(x, replicated(mesh)), tree)


def shard_rows(mesh: Mesh, batch: Tree) -> Tree:
    """Split every leaf's rows over the devices; rows that don't divide evenly go to all whole."""

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        even = len(x) % mesh.size == 0
        return _place(x, by_row(mesh) if even else replicated(mesh))

    return jax.tree.map(place, batch)


def _place(x: jax.Array | np.ndarray, sharding: NamedSharding) -> jax.Array:
    """An array that every host has, as one that each of them has its part of."""
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    if isinstance(x, jax.Array) and not x.is_fully_addressable:
        return x  # it is there already: nothing else makes such arrays
    host = np.asarray(x)
    return jax.make_array_from_callback(host.shape, sharding, lambda part: host[part])


def fetch(x: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array, on every host; all must call it together."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
