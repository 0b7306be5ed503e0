"""Meshes of devices, and shardings of params and batches on them.

There are two meshes, both with the axes `data` and `fsdp`. The host's mesh holds the frozen params;
encoding and scoring, which need no other host, run on it. The pod's mesh stacks the hosts' meshes
along `data`; a training step runs on it, on the same buffers.
"""

import os
import re
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dsd_jax.errors import UserError

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")
ROWS = PartitionSpec(AXES)  # the leading axis over all devices
WHOLE = PartitionSpec()
# From the ends of parameters' names to the axes of their last dims; all others, biases and norms,
# are replicated. Over `fsdp` a device keeps its part of the output features.
TABLE = ((r"kernel$", ("fsdp",)), (r"embedding$", ("fsdp",)))


def simulate_cpu_devices(count: int) -> None:
    """Simulate `count` CPU devices, before JAX is first used. Accelerators ignore it.

    Programs then run one after the other: the threads that carry the simulated devices are as many
    as there are cores, and two programs that wait for each other's threads wait for ever.

    Raises:
        UserError: JAX has started, as in a notebook, with another number of them.
    """
    if "JAX_NUM_CPU_DEVICES" not in os.environ:  # by which a launcher says how many
        try:
            jax.config.update("jax_num_cpu_devices", count)
        except RuntimeError as error:
            found = jax.local_device_count("cpu")
            if found != count:
                raise UserError(
                    f"cpu_devices is {count}, but JAX has started with {found} in this process; "
                    "restart the kernel, or leave cpu_devices as it is."
                ) from error
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def host_mesh(fsdp: int = 1) -> Mesh:
    """Return the mesh of this host's devices, (devices / fsdp, fsdp); params divide over `fsdp`.

    Raises:
        UserError: the devices cannot be divided so.
    """
    return _mesh(jax.local_devices(), fsdp)


def pod_mesh(mesh: Mesh) -> Mesh:
    """Return the mesh of all hosts' devices; on a single host it is `mesh`, the host's own."""
    if jax.process_count() == 1:
        return mesh
    return _mesh(jax.devices(), mesh.shape["fsdp"])


def _mesh(devices: list, fsdp: int) -> Mesh:
    count = jax.local_device_count()
    if fsdp < 1 or count % fsdp:
        raise UserError(
            f"fsdp is {fsdp}, which does not divide the {count} devices of this host; expected "
            f"one of {', '.join(str(n) for n in range(1, count + 1) if count % n == 0)}."
        )
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(-1, fsdp), AXES)


def spec_of(name: str, shape: tuple[int, ...], mesh: Mesh | AbstractMesh) -> PartitionSpec:
    """Return the partition of a parameter, such as "mid_block/attentions_0/proj_in/kernel".

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
    """Copy a parameter from the host's memory to the devices of `mesh`, to each its part."""
    return jax.device_put(array, NamedSharding(mesh, spec_of(name, array.shape, mesh)))


def mesh_of(tree: object) -> Mesh:
    """Return the mesh of placed params, or one of their devices where they were just computed."""
    leaf = jax.tree.leaves(tree)[0]
    sharding = getattr(leaf, "sharding", None)
    if isinstance(sharding, NamedSharding) and isinstance(sharding.mesh, Mesh):
        return sharding.mesh
    devices = sorted(sharding.device_set, key=lambda x: x.id) if sharding else jax.devices()[:1]
    return Mesh(np.array(devices).reshape(-1, 1), AXES)


def in_mesh(mesh: Mesh) -> AbstractContextManager:
    """Return the context in which blocks gather params, if they are divided over `mesh`."""
    return jax.set_mesh(mesh) if mesh.shape["fsdp"] > 1 else nullcontext()


def replicate(mesh: Mesh, tree: Tree) -> Tree:
    """Copy every leaf to all devices; the hosts of a pod must have the same."""
    whole = NamedSharding(mesh, WHOLE)

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        if whole.is_fully_addressable:
            return jax.device_put(x, whole)
        if isinstance(x, jax.Array) and not x.is_fully_addressable:
            return x  # only this function makes such arrays
        return jax.make_array_from_process_local_data(whole, np.asarray(x))

    return jax.tree.map(place, tree)


def shard_rows(mesh: Mesh, batch: Tree) -> Tree:
    """Split the rows of this host over its devices; rows that don't divide go to all whole.

    On a pod's mesh every leaf is this host's part of the rows, as many as the other hosts have,
    and becomes a global array; there they must divide.
    """
    rows, devices = NamedSharding(mesh, ROWS), len(mesh.local_devices)

    def place(x: jax.Array | np.ndarray) -> jax.Array:
        if not rows.is_fully_addressable:
            return jax.make_array_from_process_local_data(rows, np.asarray(x))
        return jax.device_put(x, rows if len(x) % devices == 0 else NamedSharding(mesh, WHOLE))

    return jax.tree.map(place, batch)


def on_pod(mesh: Mesh, weights: Tree) -> Tree:
    """Return params of every host's own mesh as arrays of the pod's mesh, without a copy."""
    return jax.tree.map(lambda x: _view(mesh, x), weights)


def on_host(mesh: Mesh, weights: Tree) -> Tree:
    """Return params of the pod's mesh, replicated over hosts, as arrays of this host's mesh."""
    return jax.tree.map(lambda x: _view(mesh, x), weights)


def _view(mesh: Mesh, x: jax.Array) -> jax.Array:
    """Return an array on `mesh` whose parts are those of `x` on this host's devices."""
    sharding = x.sharding
    if not isinstance(sharding, NamedSharding) or mesh == sharding.mesh:
        return x
    parts = [part.data for part in x.addressable_shards]
    return jax.make_array_from_single_device_arrays(
        x.shape, NamedSharding(mesh, sharding.spec), parts
    )


def fetch(x: jax.Array | np.ndarray) -> np.ndarray:
    """Return the whole array on every host; all must call it together."""
    if isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated):
        return multihost_utils.process_allgather(x, tiled=True)
    return np.asarray(x)
