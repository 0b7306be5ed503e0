"""Prompts that `evaluate` is given by folder, and the rows of its table that belong to them."""

import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from etils import epath

from dsd_jax.benchmarks.table_scores import LearnedPrompts
from dsd_jax.config.score_spec import ScoreSpec, parse
from dsd_jax.distributed import processes
from dsd_jax.prompts import prompt_metadata
from dsd_jax.prompts.prompt_files import read_prompts


class Given(NamedTuple):
    """What a folder of prompts says of its rows.

    methods: that the prompts serve. timesteps: how many they were learned at; None where they do
    not tell.
    """

    methods: tuple[str, ...]
    timesteps: int | None


def read_given(folders: Sequence[epath.Path], labels: Sequence[str]) -> dict[str, Given]:
    """Return {folder: what it says of its rows}; prompts that don't tell serve all methods.

    Args:
        folders: of prompts.
        labels: the config's methods.

    Raises:
        UserError: a folder holds no prompts.
    """
    everything = tuple(dict.fromkeys(parse(label, 1).method for label in labels))
    given = {}
    for folder in folders:
        own = prompt_metadata.metadata_of(str(folder))
        count = prompt_metadata.timesteps_asked(own.timesteps)
        given[str(folder)] = Given(tuple(own.methods) or everything, count)
    return given


def add_rows(
    job: Any, given: Mapping[str, Given], *, force: bool
) -> tuple[Any, dict[str, LearnedPrompts]]:
    """Return the job with the readings that the prompts need, and the prompts by folder.

    Prompts are scored by the methods of the config that they serve, or by all that they serve where
    there is none, at the number of timesteps that they were learned at.

    Raises:
        UserError: prompts are for another model, or were learned for other weights or layers.
    """
    learned = {}
    for folder, (methods, timesteps) in given.items():
        prompt_metadata.check_model(folder, job.model, force=force)
        prompt_metadata.check_layers(folder, job.layers, force=force)
        tree = read_prompts(folder, job.model.unet)
        learned[folder] = LearnedPrompts(methods, [tree], timesteps)
        missing = _missing(job, methods, timesteps)
        if missing and processes.is_main():
            names = " and ".join(reading.label for reading in missing)
            print(f"{folder} was learned for {names}, which is added to methods.", file=sys.stderr)
        job = job._replace(readings=[*job.readings, *missing])
    return job, learned


def _missing(job: Any, methods: Sequence[str], timesteps: int | None) -> list[ScoreSpec]:
    """Return the readings, without learned weights too, that the prompts need and the job lacks."""
    count = timesteps or len(job.timesteps)
    plain = [reading for reading in job.readings if reading.is_plain]
    asked = {reading.method for reading in plain} & set(methods) or set(methods)
    there = {
        reading.method
        for reading in plain
        if prompt_metadata.same_timesteps(reading.stages[0][1], count)
    }
    return [parse(f"{name}@{count}", count) for name in methods if name in asked - there]
