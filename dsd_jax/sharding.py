"""Where arrays live: one mesh, batches split over its devices, everything else on all of them."""

from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")


def simulate_cpu_devices(count: int) -> None:
    """Make the CPU count as `count` devices, before JAX is first used; accelerators don't mind.

    Programs then run one after the other: the threads that carry the simulated devices are as many
    as there are cores, and two programs that wait for each other's threads wait for ever.
    """
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
    """Put every leaf on all devices."""
    return jax.device_put(tree, replicated(mesh))


def shard_rows(mesh: Mesh, batch: Tree) -> Tree:
    """Split every leaf's rows over the devices; rows that don't divide evenly go to all whole."""

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        even = len(x) % mesh.size == 0
        return jax.device_put(x, by_row(mesh) if even else replicated(mesh))

    return jax.tree.map(place, batch)
