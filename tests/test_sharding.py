"""Arrays on two devices: rows split where they divide, whole copies elsewhere."""

import json
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.checkpoints import Checkpoints
from dsd_jax.sharding import data_mesh, replicate, shard_rows

ON_TWO_DEVICES = """
import json, pathlib, sys
import jax
jax.config.update("jax_num_cpu_devices", 2)
import jax.numpy as jnp
import numpy as np
from dsd_jax.checkpoints import Checkpoints
from dsd_jax.sharding import data_mesh, replicate, shard_rows

mesh = data_mesh()
even, odd = shard_rows(mesh, (np.arange(8.0).reshape(4, 2), np.arange(3)))
copies = replicate(mesh, {"x": jnp.zeros(5), "step": np.zeros((), np.int32)})
with Checkpoints(pathlib.Path(sys.argv[1]), {}) as checkpoints:
    step, state = checkpoints.restore(copies)
json.dump(
    {
        "mesh": dict(mesh.shape),
        "rows": [np.asarray(part.data).tolist() for part in even.addressable_shards],
        "uneven": [np.asarray(part.data).tolist() for part in odd.addressable_shards],
        "copies": [part.data.shape for part in copies["x"].addressable_shards],
        "step": step,
        "restored": [np.asarray(part.data).tolist() for part in state["x"].addressable_shards],
        "devices": len(state["step"].sharding.device_set),
    },
    sys.stdout,
)
"""


def test_one_device():
    mesh = data_mesh()
    assert mesh.axis_names == ("data",) and mesh.size == jax.device_count()
    batch = {"x": np.arange(6.0), "y": jnp.zeros((1, 2))}
    for placed in (shard_rows(mesh, batch), replicate(mesh, batch)):
        jax.tree.map(np.testing.assert_array_equal, placed, batch)
        assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(placed))


def test_two_devices_and_a_checkpoint_of_one(tmp_path):
    with Checkpoints(tmp_path / "run", {}) as checkpoints:
        checkpoints.save(7, {"x": jnp.arange(5.0), "step": jnp.asarray(7, jnp.int32)})
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO_DEVICES, str(tmp_path / "run")],
        cwd=os.path.dirname(os.path.dirname(__file__)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "mesh": {"data": 2},
        "rows": [[[0, 1], [2, 3]], [[4, 5], [6, 7]]],
        "uneven": [[0, 1, 2]] * 2,
        "copies": [[5]] * 2,
        "step": 7,
        "restored": [[0, 1, 2, 3, 4]] * 2,
        "devices": 2,
    }
