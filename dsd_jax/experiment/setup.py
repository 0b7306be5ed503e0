"""What `train` and `evaluate` share: from a config to a model, a benchmark and a report."""

import importlib.metadata
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsd_jax.config import score_spec
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError
from dsd_jax.experiment.workdir import Workdir, open_workdir

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "tensorflow-datasets")


class Job(NamedTuple):
    """A config made concrete, before anything is computed."""

    benchmark: Any
    splits: list
    encoders: Any
    clip: Any
    readings: list
    layers: tuple[str, ...]
    timesteps: np.ndarray
    started: float

    @property
    def model(self) -> Any:
        """The frozen model."""
        return self.encoders.model


@contextmanager
def opened(
    config: RunConfig, folder: Path, command: str, inputs: Mapping[str, Any] | None = None
) -> Iterator[Workdir]:
    """Join the other hosts, and make sure of the folder, as `open_workdir` does.

    Args:
        config: of the run.
        folder: its --workdir.
        command: "train" or "evaluate".
        inputs: JSON values that decide the report besides the config.
    """
    from dsd_jax.distributed import processes
    from dsd_jax.distributed.devices import check_devices
    from dsd_jax.distributed.sharding import simulate_cpu_devices

    simulate_cpu_devices(config.cpu_devices)
    processes.join()
    check_devices()
    settings = {**config.model_dump(mode="json"), **(inputs or {})}
    with open_workdir(folder, command, settings) as workdir:
        if workdir.is_finished and processes.is_main():
            print(
                f"{workdir.folder} holds this very run, finished: its report is "
                f"{workdir.folder / 'report.html'}, and nothing is left to compute.",
                file=sys.stderr,
            )
        yield workdir


def start(config: RunConfig, workdir: Workdir) -> Job:
    """Load the benchmark and the model, check the config's names, then begin the run's folder.

    Raises:
        UserError: a split or layer in the config is not one we know, or data is missing.
    """
    started = time.monotonic()
    from dsd_jax.benchmarks.encoding import Encoders
    from dsd_jax.benchmarks.prepared_copy import check_prepared
    from dsd_jax.benchmarks.registry import open_benchmark
    from dsd_jax.benchmarks.splits import load_split
    from dsd_jax.clip.clip_loading import load_clip
    from dsd_jax.config.score_spec import parse_all
    from dsd_jax.distributed import processes
    from dsd_jax.distributed.sharding import host_mesh
    from dsd_jax.experiment.sweep import check_shots
    from dsd_jax.matching import score_functions
    from dsd_jax.weights.model_loading import load

    readings = parse_all(config.methods, config.timesteps)
    timesteps = score_spec.timesteps(config.timesteps)
    benchmark = open_benchmark(config.data)
    benchmark = benchmark._replace(load=lru_cache(benchmark.load))  # files are parsed once
    splits = [load_split(benchmark, name, config.per_kind) for name in config.splits]
    for split in splits:
        check_pruning(readings, split)
    if workdir.command == "train":
        check_shots(config, benchmark)
    check_layers(config)
    model = load(config.weights, config.dtype, host_mesh(config.fsdp))
    layers = score_functions.chosen_layers(model.unet, config.layers or None)
    encoders = Encoders(model, config.cache)
    tell_counts(splits)
    if processes.is_main():
        asked = {count for reading in readings for _, count in reading.stages}
        for count in sorted(asked | {config.timesteps}):
            score_spec.warn_of_count(count)
    clip = load_clip(config.clip, config.dtype, model.mesh) if config.clip else None
    check_prepared(config.data, model.image_size, clip.image_size if clip else 0)
    if processes.is_main():
        workdir.begin(config.to_json(indent=2) + "\n")
    return Job(benchmark, splits, encoders, clip, readings, layers, timesteps, started)


def check_layers(config: RunConfig) -> None:
    """Check the config's layers before gigabytes are read; `UserError` where one is unknown."""
    from dsd_jax.matching.score_functions import chosen_layers
    from dsd_jax.models.components import UNET
    from dsd_jax.weights.component_configs import read_config
    from dsd_jax.weights.model_folder import find

    if config.layers:
        chosen_layers(read_config(find(config.weights), UNET), config.layers)


def check_pruning(readings: list, split: Any) -> None:
    """Candidates can be dropped only where an item has one picture or one caption.

    Raises:
        UserError: a reading prunes, and the split's items have several of both.
    """
    shape = [len(split.examples.pictures[0]), len(split.examples.captions[0])]
    for reading in readings:
        if len(reading.stages) > 1 and min(shape) > 1:
            raise UserError(
                f"method '{reading.label}' drops candidates, but the items of {split.name} have "
                f"{shape[0]} pictures and {shape[1]} captions, all of which are compared; name a "
                "method without '>'."
            )


def tell_counts(splits: list) -> None:
    """How many items of each kind will be scored, on stderr."""
    from dsd_jax.distributed import processes

    if processes.is_main():
        for split in splits:
            counts = Counter(split.kinds)
            parts = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            shape = f"{len(split.examples.pictures[0])} x {len(split.examples.captions[0])}"
            print(
                f"{split.name}: {split.count} items of {shape} pictures and captions ({parts})",
                file=sys.stderr,
            )


def report(
    config: RunConfig,
    workdir: Workdir,
    job: Job,
    learned: Mapping[str, Any],
    tuned: Mapping[str, Any],
) -> None:
    """Score the config's splits by the model and the CLIP, print the table, write the report."""
    from dsd_jax.benchmarks.table_scores import EvalPlan
    from dsd_jax.distributed import processes
    from dsd_jax.experiment.clip_rows import clip_scores
    from dsd_jax.experiment.evaluation import evaluate, identity_of
    from dsd_jax.experiment.score_cache import ScoreCache
    from dsd_jax.report import print_table, report_files

    asked = EvalPlan(job.readings, job.layers, config.timesteps, config.seed, learned)
    settings = config.data.model_dump(mode="json")
    kept = ScoreCache(workdir.folder / "scores", identity_of(job.encoders, asked, settings))
    rivals = [partial(clip_scores, job.clip, tuned)] if job.clip else []
    table = evaluate(job.encoders, job.splits, asked, kept, rivals)
    if processes.is_main():
        about = header(config, job) | {"passes": table.passes}
        contents = report_files(about, table.rows, table.decisions, table.comparisons)
        try:
            workdir.write_reports(contents)
            kept.forget()
        finally:  # where the disk is full the terminal has the table, and the other way round
            print_table(table.rows)


def header(config: RunConfig, job: Job) -> dict[str, Any]:
    """What a report says of the run that made it."""
    import jax

    return {
        "benchmark": job.benchmark.name,
        "weights": config.weights,
        **({"clip": config.clip} if config.clip else {}),
        "seed": config.seed,
        "seconds": round(time.monotonic() - job.started, 1),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "config": config.model_dump(mode="json"),
    }
