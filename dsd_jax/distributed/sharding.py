"""Where arrays live: meshes of devices, a table for weights, rows of a batch over all devices.

Two meshes, both with the axes `data` and `fsdp`. A host's own holds the frozen weights, and all
that needs no other host runs on it: encoding, scoring. The pod's puts the hosts' meshes one below
the other; a training step runs on it, on the same buffers.
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from dsd_jax.errors import UserError

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")
ROWS = PartitionSpec(AXES)  # the leading axis over all devices
WHOLE = PartitionSpec()
# From the ends of parameters' names to the axes of their last dims; what is not named, biases and
# norms, is whole everywhere. Over `fsdp` a device keeps its part of the output features.
TABLE = ((r"kernel$", ("fsdp",)), (r"embedding$", ("fsdp",)))


def simulate_cpu_devices(count: int) -> None:
    """Make the CPU count as `count` devices, before JAX is first used; accelerators don't mind.

    Programs then run one after the other: the threads that carry the simulated devices are as many
    as there are cores, and two programs that wait for each other's threads wait for ever.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:  # by which a launcher says how many
        jax.config.update("jax_num_cpu_devices", count)
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def host_mesh(fsdp: int = 1) -> Mesh:
    """This host's devices; `fsdp` of them share one copy of the weights.

    Raises:
        UserError: the devices cannot be divided so.
    """
    return _mesh(jax.local_devices(), fsdp)


def pod_mesh(mesh: Mesh) -> Mesh:
    """All hosts' devices, for the `mesh` of this host; the same object on a single host."""
    if jax.process_count() == 1:
        return mesh
    return _mesh(jax.devices(), mesh.shape["fsdp"])


def _mesh(devices: list[jax.Device], fsdp: int) -> Mesh:
    here = jax.local_device_count()
    if fsdp < 1 or here % fsdp:
        raise UserError(
            f"fsdp is {fsdp}, which does not divide the {here} devices of this host; expected "
            f"one of {', '.join(str(n) for n in range(1, here + 1) if here % n == 0)}."
        )
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(-1, fsdp), AXES)


def spec_of(name: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """How the parameter `name`, such as "mid_block/attentions_0/proj_in/kernel", is divided.

    A dim that its axis does not divide stays whole.
    """
    for pattern, last in TABLE:
        if re.search(pattern, name) and len(shape) >= len(last):
            sizes = shape[len(shape) - len(last) :]
            axes = [
                axis if size % mesh.shape[axis] == 0 else None
                for axis, size in zip(last, sizes, strict=True)
            ]
            return PartitionSpec(*(None,) * (len(shape) - len(last)), *axes)
    return WHOLE


def place_weight(name: str, array: np.ndarray, mesh: Mesh) -> jax.Array:
    """A parameter from the host's memory to the devices of `mesh`, each of which gets its part."""
    return jax.device_put(array, NamedSharding(mesh, spec_of(name, array.shape, mesh)))


def mesh_of(tree: object) -> Mesh:
    """The mesh on which placed weights lie; that of their device where they were just computed."""
    leaf = jax.tree.leaves(tree)[0]
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding):
        return sharding.mesh
    devices = sorted(sharding.device_set, key=lambda x: x.id) if sharding else jax.devices()[:1]
    return Mesh(np.array(devices).reshape(-1, 1), AXES)


def in_mesh(mesh: Mesh) -> AbstractContextManager:
    """The context in which blocks gather weights that are divided over `mesh`, if they are."""
    return jax.set_mesh(mesh) if mesh.shape["fsdp"] > 1 else nullcontext()


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Put every leaf whole on all devices; the hosts of a pod must have the same."""
    whole = NamedSharding(mesh, WHOLE)

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        if whole.is_fully_addressable:
            return jax.device_put(x, whole)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x  # it is there already: nothing else makes such arrays
        return jax.make_array_from_process_local_data(whole, np.asarray(x))

    return jax.tree.map(place, tree)


def shard_rows(mesh: Mesh, batch: Tree) -> Tree:
    """Split the rows of this host over its devices; rows that don't divide go to all whole.

    On a pod's mesh every leaf is this host's part of the rows, as many as the other hosts have,
    and becomes a global array; there they must divide.
    """
    rows, here = NamedSharding(mesh, ROWS), len(mesh.local_devices)

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        if not rows.is_fully_addressable:
            return jax.make_array_from_process_local_data(rows, np.asarray(x))
        return jax.device_put(x, rows if len(x) % here == 0 else NamedSharding(mesh, WHOLE))

    return jax.tree.map(place, batch)


def on_pod(mesh: Mesh, weights: Tree) -> Tree:
    """Weights that every host has on its own mesh, as arrays of the pod's, without a copy."""
    return jax.tree.map(lambda x: _view(mesh, x), weights)


def on_host(mesh: Mesh, weights: Tree) -> Tree:
    """Weights on the pod's mesh, of which every host has a copy, as arrays of this host's mesh."""
    return jax.tree.map(lambda x: _view(mesh, x), weights)


def _view(mesh: Mesh, x: jax.Array) -> jax.Array:
    """The parts of `x` on this host's devices as parts of an array on `mesh`."""
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or mesh == sharding.mesh:
        return x
    parts = [part.data for part in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(
        x.shape, NamedSharding(mesh, sharding.spec), parts
    )


def fetch(x: jax.Array | np.ndarray) -> np.ndarray:
    """The whole array, on every host; all must call it together."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
