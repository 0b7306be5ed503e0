"""Prompts that `evaluate` is given by folder, and the rows of its table that belong to them."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from etils import epath

from dsd_jax.benchmarks.table_rows import LearnedPrompts
from dsd_jax.config.score_spec import ScoreSpec, parse
from dsd_jax.distributed import processes
from dsd_jax.experiment.setup import Experiment
from dsd_jax.prompts import prompt_compatibility
from dsd_jax.prompts.prompt_compatibility import same_timesteps
from dsd_jax.prompts.prompt_files import read_prompts


class Use(NamedTuple):
    """The scores that prompts were learned for.

    Attributes:
        methods: names of score functions.
        timesteps: how many timesteps they average over; None where the prompts do not say.
    """

    methods: tuple[str, ...]
    timesteps: int | None


def read_uses(folders: Sequence[epath.Path], labels: Sequence[str]) -> dict[str, Use]:
    """Return {folder: use of its prompts}; prompts that do not say serve all methods.

    Args:
        folders: of prompts.
        labels: the config's methods.

    Raises:
        UserError: a folder holds no prompts.
    """
    all_methods = tuple(dict.fromkeys(parse(label, 1).method for label in labels))
    uses = {}
    for folder in folders:
        metadata = prompt_compatibility.metadata_of(str(folder))
        count = prompt_compatibility.timesteps_asked(metadata.timesteps)
        uses[str(folder)] = Use(tuple(metadata.methods) or all_methods, count)
    return uses


def add_prompts(
    experiment: Experiment, uses: Mapping[str, Use], *, force: bool
) -> tuple[Experiment, dict[str, LearnedPrompts]]:
    """Return the experiment with the scores that the prompts need added, and the prompts by folder.

    Prompts are scored by the methods of the config that they serve, or where there is none by all
    that they serve, at the number of timesteps that they were learned at.

    Raises:
        UserError: prompts are for another model, or were learned for other weights or layers.
    """
    prompts = {}
    for folder, use in uses.items():
        prompt_compatibility.check_model(folder, experiment.model, force=force)
        prompt_compatibility.check_layers(folder, experiment.layers, force=force)
        trained = read_prompts(folder, experiment.model.unet)
        recipe = prompt_compatibility.metadata_of(folder).recipe
        kinds = recipe.kinds if recipe else ()
        prompts[folder] = LearnedPrompts(use.methods, [trained], use.timesteps, kinds)
        missing = _missing_specs(experiment, use)
        if missing and processes.is_main():
            names = " and ".join(spec.label for spec in missing)
            print(f"{folder} was learned for {names}, which is added to methods.", file=sys.stderr)
        experiment = replace(experiment, specs=[*experiment.specs, *missing])
    return experiment, prompts


def _missing_specs(experiment: Experiment, use: Use) -> list[ScoreSpec]:
    """Return the scores that the prompts are for and the experiment lacks."""
    count = use.timesteps or len(experiment.timesteps)
    plain = [spec for spec in experiment.specs if spec.is_plain]
    needed = {spec.method for spec in plain} & set(use.methods) or set(use.methods)
    present = {spec.method for spec in plain if same_timesteps(spec.stages[0][1], count)}
    return [parse(f"{name}@{count}", count) for name in use.methods if name in needed - present]
