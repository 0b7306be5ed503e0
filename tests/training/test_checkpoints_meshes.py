"""A checkpoint of some devices and hosts is restored on others, bit for bit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Saves where there is no checkpoint yet; prints, where there is one, what it restored.
PROGRAM = """
import json, os, sys
import jax
from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import simulate_cpu_devices

folder, rows, columns = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
simulate_cpu_devices(rows * columns)
processes.join()
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from dsd_jax.training.checkpoints import Checkpoints

axes = (AxisType.Auto,) * 2
mesh = jax.make_mesh((rows, columns), ("data", "model"), axis_types=axes)

def place(x, *spec):
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    return jax.make_array_from_callback(x.shape, sharding, lambda part: x[part])

def state(scale):
    x = np.arange(64 * 32, dtype=np.float32).reshape(64, 32) * scale / 7
    return {
        "both": place(x, "data", "model"),
        "rows": place(x + 1, "data"),
        "columns": place(x + 2, None, "model"),
        "copies": place(x + 3),
        "host": x + 4,
        "step": np.asarray(int(9 * scale)),
    }

with Checkpoints(folder, {"a": 1}) as checkpoints:
    found = checkpoints.restore(state(0))
    if found is None:
        checkpoints.save(9, state(1), examples=36, metric=0.5)
    else:
        step, restored = found
        same = {
            name: all(
                np.array_equal(np.asarray(part.data), np.asarray(other.data))
                for part, other in zip(
                    getattr(leaf, "addressable_shards", ()),
                    getattr(state(1)[name], "addressable_shards", ()),
                )
            ) if isinstance(leaf, jax.Array) else np.array_equal(leaf, state(1)[name])
            for name, leaf in restored.items()
        }
        shards = [list(part.data.shape) for part in restored["both"].addressable_shards]
        checkpoints.save(10, restored)
        print(json.dumps({"step": step, "same": all(same.values()), "shards": shards}))
"""


def run(folder: Path, rows: int, columns: int, procs: int = 1, damaged: int = 0) -> list[dict]:
    """Return what each process prints about its restored state; `damaged` lines are reports."""
    command = [sys.executable, "-c", PROGRAM, str(folder), str(rows), str(columns)]
    if procs > 1:
        devices = rows * columns // procs
        pod = ["local", "--procs", str(procs), "--devices", str(devices), "--", *command]
        command = ["bash", str(ROOT / "launch" / "run.sh"), *pod]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "DSD_VENV": sys.prefix},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("is damaged, passed over") == damaged
    lines = [line[line.index("{") :] for line in done.stdout.splitlines() if "{" in line]
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def eight(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("eight")
    assert run(folder, 4, 2) == []
    return folder


@pytest.mark.parametrize(("rows", "columns"), [(2, 4), (1, 1)])
def test_another_mesh(eight, tmp_path, rows, columns):
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(eight), str(folder)], check=True)
    shards = [[64 // rows, 32 // columns]] * (rows * columns)
    assert run(folder, rows, columns) == [{"step": 9, "same": True, "shards": shards}]


def test_two_hosts_after_one_and_one_after_two(eight, tmp_path):
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(eight), str(folder)], check=True)
    told = {"step": 9, "same": True, "shards": [[32, 16]] * 2}
    assert run(folder, 2, 2, procs=2) == [told] * 2
    assert (folder / "10").exists()
    assert run(folder, 1, 1) == [{"step": 10, "same": True, "shards": [[64, 32]]}]


def test_two_hosts_agree_on_damage(eight, tmp_path):
    """One of them says so and renames, and both save the step again."""
    folder = tmp_path / "run"
    subprocess.run(["cp", "-r", str(eight), str(folder)], check=True)
    os.truncate(folder / "9" / "state" / "manifest.ocdbt", 50)
    assert run(folder, 2, 2, procs=2, damaged=1) == []
    assert sorted(place.name.split("-")[0] for place in folder.iterdir()) == ["9", "damaged"]
    assert run(folder, 2, 1) == [{"step": 9, "same": True, "shards": [[32, 32]] * 2}]
