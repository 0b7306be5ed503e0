"""What `train` and `evaluate` share: from a config to a model, splits and a report."""

import importlib.metadata
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.errors import UserError

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "tensorflow-datasets")


class Job(NamedTuple):
    """A config made concrete, before anything is computed."""

    model: Any
    layers: tuple[str, ...]
    timesteps: np.ndarray
    started: float


def start(config: Any, workdir: Path) -> Job:
    """Check the config's names and numbers, write it to the workdir, load the model.

    Raises:
        UserError: a method, layer or number in the config is not one we know.
    """
    started = time.monotonic()
    from dsd_jax import diffusion, hosts, methods
    from dsd_jax.data.emoji import split_names
    from dsd_jax.folders import write_file
    from dsd_jax.sharding import host_mesh, simulate_cpu_devices
    from dsd_jax.weights.load import load

    for field in ("methods", "splits"):
        if not config[field]:
            raise UserError(f"{field} is empty; name at least one.")
    if config.seed < 0:
        raise UserError(f"seed is {config.seed}; expected 0 or more.")
    if config.per_kind is not None and config.per_kind < 2:
        raise UserError(
            f"per_kind is {config.per_kind}; expected 2 or more, for a standard error takes two."
        )
    for name in config.methods:
        methods.method_named(name)
    for name in config.splits:
        if name not in split_names():
            raise UserError(f"splits: '{name}' is unknown; expected {', '.join(split_names())}.")
    timesteps = diffusion.timesteps(config.timesteps)
    simulate_cpu_devices(config.cpu_devices)
    hosts.join()
    if hosts.is_main():
        write_file(workdir / "config.json", config.to_json(indent=2) + "\n")
    model = load(config.weights, config.dtype, host_mesh(config.fsdp))
    layers = methods.chosen_layers(model.unet, tuple(config.layers) or None)
    return Job(model, layers, timesteps, started)


def report(config: Any, workdir: Path, job: Job, learned: Mapping[str, Any]) -> None:
    """Score the config's splits, print the table and write the report."""
    from dsd_jax import hosts
    from dsd_jax.benchmark import load_split
    from dsd_jax.evaluation import evaluate
    from dsd_jax.report import print_table, write_report

    splits = [load_split(job.model, name, config.per_kind, config.cache) for name in config.splits]
    table = evaluate(
        job.model, splits, config.methods, job.layers, job.timesteps, config.seed, learned
    )
    if hosts.is_main():
        print_table(table.rows)
        about = header(config, job)
        write_report(workdir, about, table.rows, table.decisions, table.comparisons)


def header(config: Any, job: Job) -> dict[str, Any]:
    """What a report says of the run that made it."""
    import jax

    return {
        "benchmark": "emoji",
        "weights": config.weights,
        "seed": config.seed,
        "seconds": round(time.monotonic() - job.started, 1),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "config": json.loads(config.to_json()),
    }
