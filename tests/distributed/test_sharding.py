"""Where arrays live: weights by the table, rows over all devices, and what does not divide."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from dsd_jax.distributed.sharding import (
    host_mesh,
    in_mesh,
    mesh_of,
    on_pod,
    pod_mesh,
    replicate,
    shard_rows,
    simulate_cpu_devices,
)
from dsd_jax.errors import UserError

ON_EIGHT_DEVICES = """
import json, sys
import jax
from dsd_jax.distributed.sharding import host_mesh, mesh_of, place_weight, replicate, shard_rows, \\
    simulate_cpu_devices
simulate_cpu_devices(8)
import jax.numpy as jnp
import numpy as np
import dsd_jax

mesh = host_mesh(4)
model = dsd_jax.load("tiny", mesh=mesh)
parts, whole, here = {}, 0, 0
for path, leaf in jax.tree_util.tree_leaves_with_path(model.params):
    name = jax.tree_util.keystr(path, simple=True, separator="/").rpartition("/")[2]
    part = leaf.addressable_shards[0].data
    parts.setdefault(name, set()).add(leaf.size // part.size)
    whole, here = whole + leaf.nbytes, here + part.nbytes
even, odd = shard_rows(mesh, (np.arange(16.0).reshape(8, 2), np.arange(3)))
json.dump(
    {
        "mesh": dict(mesh.shape),
        "parts": {name: sorted(found) for name, found in parts.items()},
        "share": here / whole,
        "rows": [np.asarray(part.data).tolist() for part in even.addressable_shards],
        "uneven": len({part.data.shape for part in odd.addressable_shards}),
        "same": mesh_of(model.params) == mesh,
    },
    sys.stdout,
)
"""


def test_eight_devices_of_which_four_share_the_weights():
    done = subprocess.run(
        [sys.executable, "-c", ON_EIGHT_DEVICES],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["mesh"] == {"data": 2, "fsdp": 4} and found["same"]
    # A kernel with three or eight outputs that four does not divide, or does, and the others.
    assert 4 in found["parts"]["kernel"] and found["parts"]["embedding"] == [4]
    assert found["parts"]["bias"] == found["parts"]["scale"] == [1]
    assert 0.25 < found["share"] < 0.3
    assert sorted(found["rows"]) == [[[2.0 * i, 2.0 * i + 1]] for i in range(8)]
    assert found["uneven"] == 1


def test_one_device():
    mesh = host_mesh()
    assert mesh.axis_names == ("data", "fsdp") and mesh.size == jax.device_count()
    batch = {"x": np.arange(6.0), "y": jnp.zeros((1, 2))}
    for placed in (shard_rows(mesh, batch), replicate(mesh, batch)):
        jax.tree.map(np.testing.assert_array_equal, placed, batch)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(placed))
        assert mesh_of(placed) == mesh
    assert pod_mesh(mesh) is mesh
    assert on_pod(mesh, placed)["x"] is placed["x"]
    with in_mesh(mesh):
        assert jax.jit(lambda x: x + 1)(1.0) == 2


def test_weights_that_were_just_computed_are_on_their_device():
    assert mesh_of({"kernel": jnp.zeros(3)}).devices.tolist() == [[jax.devices()[0]]]


@pytest.mark.parametrize("fsdp", [0, 2, -1])
def test_devices_that_cannot_be_divided(fsdp):
    with pytest.raises(UserError, match=f"fsdp is {fsdp}, which does not divide the 1 devices"):
        host_mesh(fsdp)


def test_table():
    from dsd_jax.distributed.sharding import spec_of

    class Four:
        shape = {"data": 2, "fsdp": 4}

    def spec(name, *shape):
        return spec_of(name, shape, Four)

    assert spec("mid_block/resnets_0/conv1/kernel", 3, 3, 8, 16) == PartitionSpec(
        None, None, None, "fsdp"
    )
    assert spec("add_embedding/linear_1/kernel", 6, 8) == PartitionSpec(None, "fsdp")
    assert spec("text_projection/kernel", 6, 8) == PartitionSpec(None, "fsdp")
    assert spec("text_model/embeddings/token_embedding/embedding", 9, 8) == PartitionSpec(
        None, "fsdp"
    )
    assert spec("conv_out/kernel", 3, 3, 8, 6) == PartitionSpec(None, None, None, None)
    assert spec("mid_block/resnets_0/conv1/bias", 16) == PartitionSpec()


def test_where_jax_has_started_the_number_of_devices_stays():
    before = jax.config.values["jax_cpu_enable_async_dispatch"]
    found = jax.local_device_count("cpu")
    try:
        simulate_cpu_devices(found)
        with pytest.raises(UserError, match=f"started with {found} in this process; restart"):
            simulate_cpu_devices(found + 1)
    finally:
        jax.config.update("jax_cpu_enable_async_dispatch", before)
