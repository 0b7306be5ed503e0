"""The set-up that `train` and `evaluate` share: from a config to a loaded `Experiment`."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from etils import epath

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.prepared_copy import check_prepared
from dsd_jax.benchmarks.registry import open_benchmark
from dsd_jax.benchmarks.splits import Split, check_shots, load_split
from dsd_jax.clip.clip_files import load_clip
from dsd_jax.clip.clip_model import Clip
from dsd_jax.config import score_spec
from dsd_jax.config.run_config import RunConfig
from dsd_jax.config.score_spec import ScoreSpec
from dsd_jax.data.examples import Benchmark
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed import processes
from dsd_jax.distributed.devices import check_devices
from dsd_jax.distributed.sharding import host_mesh, simulate_cpu_devices
from dsd_jax.errors import UserError
from dsd_jax.experiment.workdir import Workdir, open_workdir
from dsd_jax.io.progress import Stage, stages_hidden
from dsd_jax.matching.score_functions import chosen_layers
from dsd_jax.models.components import UNET
from dsd_jax.training.metrics_trackers import check_tracker
from dsd_jax.weights.component_files import read_config
from dsd_jax.weights.model_folder import find
from dsd_jax.weights.model_loading import load


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """A config and all that it names, loaded.

    Attributes:
        config: of the run.
        workdir: of the run.
        benchmark: whose splits are scored and learned from.
        splits: that are scored.
        encoders: of the frozen model.
        clip: the baseline; None where the config names none.
        specs: what the table has a row for before anything is learned.
        layers: whose attention scores are averaged.
        timesteps: (T,) that prompts are learned at.
        started: `time.monotonic()` at the start of the run, in seconds.
        is_resumed: whether an earlier start has begun the run.
        progress: whether this process shows how far the run is.
    """

    config: RunConfig
    workdir: Workdir
    benchmark: Benchmark
    splits: Sequence[Split]
    encoders: Encoders
    clip: Clip | None
    specs: Sequence[ScoreSpec]
    layers: tuple[str, ...]
    timesteps: np.ndarray
    started: float
    is_resumed: bool
    progress: bool

    @property
    def model(self) -> Model:
        """The frozen model."""
        return self.encoders.model

    @property
    def folder(self) -> epath.Path:
        """The folder that the run writes into."""
        return self.workdir.folder


@contextmanager
def open_run(
    config: RunConfig,
    folder: epath.Path,
    command: str,
    inputs: Mapping[str, Any] | None = None,
    *,
    progress: bool = True,
) -> Iterator[Workdir]:
    """Join the other hosts, then check and lock the workdir as `open_workdir` does.

    Args:
        config: of the run.
        folder: its --workdir.
        command: "train" or "evaluate".
        inputs: JSON values that decide the report besides the config.
        progress: whether the main process shows how far the run is.
    """
    check_tracker(config.tracker)
    simulate_cpu_devices(config.cpu_devices)
    processes.join()
    check_devices()
    settings = {**config.model_dump(mode="json"), **(inputs or {})}
    hidden = not progress or not processes.is_main()
    with stages_hidden(hidden), open_workdir(folder, command, settings) as workdir:
        if workdir.is_finished and processes.is_main():
            print(
                f"{workdir.folder} holds this very run, finished: its report is "
                f"{workdir.folder / 'report.html'}, and nothing is left to compute.",
                file=sys.stderr,
            )
        yield workdir


def load_experiment(config: RunConfig, workdir: Workdir, *, progress: bool = True) -> Experiment:
    """Check the names in a config, load its benchmark and models, then begin the workdir.

    Args:
        config: of the run.
        workdir: of the run.
        progress: whether the main process shows how far the run is.

    Raises:
        UserError: a split or layer in the config is unknown, or data is missing.
    """
    started, progress = time.monotonic(), progress and processes.is_main()
    specs = score_spec.parse_all(config.methods, config.timesteps)
    benchmark = open_benchmark(config.data)
    benchmark = benchmark._replace(load=lru_cache(benchmark.load))  # files are parsed once
    splits = [load_split(benchmark, name, config.per_kind) for name in config.splits]
    for split in splits:
        _check_pruning(specs, split)
    if workdir.command == "train" and config.recipes:
        check_shots(benchmark, config.shots_from, config.shots, config.seed)
    if config.layers:  # before gigabytes are read
        chosen_layers(read_config(find(config.weights), UNET), config.layers)
    model = load(config.weights, config.dtype, host_mesh(config.fsdp), progress=progress)
    with Stage("checksums of the weights", shown=progress):
        encoders = Encoders(model, config.cache)
        _ = model.weights_digest  # which the model keeps: all that is written names it
    if processes.is_main():
        counts = {count for spec in specs for _, count in spec.stages}
        for count in sorted(counts | {config.timesteps}):
            score_spec.warn_of_count(count)
    clip = load_clip(config.clip, config.dtype, model.mesh) if config.clip else None
    check_prepared(config.data, model.image_size, clip.image_size if clip else 0)
    is_resumed = workdir.is_begun
    if processes.is_main():
        workdir.begin(config.to_json(indent=2) + "\n")
    return Experiment(
        config=config,
        workdir=workdir,
        benchmark=benchmark,
        splits=splits,
        encoders=encoders,
        clip=clip,
        specs=specs,
        layers=chosen_layers(model.unet, config.layers or None),
        timesteps=score_spec.timesteps(config.timesteps),
        started=started,
        is_resumed=is_resumed,
        progress=progress,
    )


def _check_pruning(specs: Sequence[ScoreSpec], split: Split) -> None:
    """Raise `UserError` where candidates are dropped of items with several images and captions."""
    images, captions = split.shape
    for spec in specs:
        if len(spec.stages) > 1 and min(images, captions) > 1:
            raise UserError(
                f"method '{spec.label}' drops candidates, but the items of {split.name} have "
                f"{images} images and {captions} captions, all of which are compared; name a "
                "method without '>'."
            )
