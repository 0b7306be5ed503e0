"""Record of a run for its report: facts, names in plain words, how learning went, settings."""

import datetime
import importlib.metadata
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax

from dsd_jax.benchmarks.table_rows import LearnedPrompts
from dsd_jax.clip.fine_tuning import TunedClip
from dsd_jax.config.fields import defaults_of, flatten, known_fields
from dsd_jax.config.recipes import ClipRecipe, RecipeConfig
from dsd_jax.config.run_config import RunConfig
from dsd_jax.config.score_spec import ScoreSpec, method_named
from dsd_jax.experiment.clip_baseline import NAME as CLIP
from dsd_jax.experiment.setup import Experiment
from dsd_jax.experiment.sweep import prompts_folder, shot_draws
from dsd_jax.prompts.prompt_compatibility import metadata_of
from dsd_jax.prompts.prompt_metadata import PromptMetadata
from dsd_jax.report import HeldOutGain, LearningRun, RunDetails, Setting, Term
from dsd_jax.training.held_out_verdict import HeldOutVerdict

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "tensorflow-datasets")
_OF_LEARNING = ("seeds", "shots_from", "shots", "noises", "recipes", "learn", "tune")
_KINDS = {
    "lora": "LoRA of rank {rank} (small changes to the matrices of the cross-attention)",
    "tokens": "{tokens} learned tokens a layer (as if words were added to every caption)",
    "weights": "weights of the score's parts, by layer, head and timestep (the model stays as it "
    "is)",
}


def header_of(experiment: Experiment, command: str) -> dict[str, Any]:
    """Return the header of the report: the facts of the run.

    Args:
        experiment: of the run.
        command: as it was typed.
    """
    config = experiment.config
    return {
        "benchmark": experiment.benchmark.name,
        "weights": config.weights,
        **({"clip": config.clip} if config.clip else {}),
        "seed": config.seed,
        "seconds": round(time.monotonic() - experiment.started, 1),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        **({"command": command} if command else {}),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in PACKAGES},
        },
        "config": config.model_dump(mode="json"),
    }


def details_of(
    experiment: Experiment,
    learned: Mapping[str, LearnedPrompts],
    tuned: Mapping[str, Sequence[TunedClip]],
) -> RunDetails:
    """Return what the report tells besides results.

    Args:
        experiment: of the run.
        learned: prompts by the label of their rows.
        tuned: fine-tuned CLIPs, likewise.
    """
    folders = list(_learned_folders(experiment, learned))
    return RunDetails(
        methods=list(_method_terms(experiment)),
        recipes=[*_prompt_terms(experiment, folders), *_clip_terms(experiment, tuned)],
        learning=[*_learning_runs(folders), *_clip_runs(experiment, tuned)],
        settings=list(_settings(experiment.config, experiment.workdir.command == "train")),
    )


def _learned_folders(
    experiment: Experiment, learned: Mapping[str, LearnedPrompts]
) -> Iterator[tuple[str, PromptMetadata]]:
    """Yield (label, metadata) of all prompts: those of the workdir, or those that were given."""
    is_own = bool(learned) and experiment.workdir.command == "train"
    of_workdir = list(shot_draws(experiment)) if is_own else []
    for label in learned:
        folders = [
            prompts_folder(experiment, label, draw)
            for draw in of_workdir
            if label.endswith(f"-{draw.count}")
        ]
        for folder in folders or [label]:
            yield label, metadata_of(str(folder))


def _method_terms(experiment: Experiment) -> Iterator[Term]:
    for spec in experiment.specs:
        yield Term(spec.label, f"{method_named(spec.method).meaning} {_stages_text(spec)}")
    if experiment.clip:
        yield Term(
            CLIP,
            f"{experiment.config.clip}, for comparison: how alike the vectors are that it makes of "
            "the image and of the caption.",
        )


def _stages_text(spec: ScoreSpec) -> str:
    """Return at how many noise levels a score is taken, as a sentence."""
    (_, first), *later = spec.stages
    text = f"Mean over {_levels(first)}"
    for keep, count in later:
        text += f", for the best {keep} candidates over {_levels(count)}"
    if spec.compat:
        text += "; averaged over batches of 16 items, as the authors' code does"
    return f"{text}."


def _levels(count: int) -> str:
    return f"{count} noise level" if count == 1 else f"{count} noise levels"


def _prompt_terms(
    experiment: Experiment, folders: Sequence[tuple[str, PromptMetadata]]
) -> Iterator[Term]:
    for label, metadata in dict(folders).items():
        meaning = _recipe_text(metadata)
        if experiment.workdir.command != "train":
            meaning = f"{meaning[:-1]}; from {label}."
        yield Term(label, meaning)


def _recipe_text(metadata: PromptMetadata) -> str:
    """Return what was learned, for which scores and from what, as a sentence."""
    recipe = metadata.recipe
    if recipe is None:
        source = metadata.converted_from
        return f"Converted from {source}." if source else "Of unknown origin."
    settings = {**RecipeConfig.model_construct().model_dump(), **recipe.stated()}
    what = " and ".join(_KINDS[kind].format(**settings) for kind in recipe.kinds if kind in _KINDS)
    text = f"{what or 'Prompts'}, learned for {_listed(recipe.methods)}"
    if metadata.shots:
        text += f" from {metadata.shots} shots of {metadata.shots_from}"
    if set(recipe.kinds) - {"weights"}:
        text += f", in {settings['steps']} steps at most"
        if settings["denoise"]:
            text += "; the matching images' noise is learned, too"
    return text[0].upper() + text[1:] + "."


def _listed(names: Sequence[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _clip_terms(experiment: Experiment, tuned: Mapping[str, Sequence[TunedClip]]) -> Iterator[Term]:
    recipe: ClipRecipe = experiment.config.tune
    what = "all params" if recipe.kind == "full" else "its projections"
    for label in tuned:
        yield Term(
            label,
            f"The CLIP fine-tuned ({what}) on the shots that the prompts have, in {recipe.steps} "
            "steps at most.",
        )


def _learning_runs(folders: Sequence[tuple[str, PromptMetadata]]) -> Iterator[LearningRun]:
    """Yield how learning went, where train has written it beside the prompts."""
    for label, metadata in folders:
        if "verdicts" in metadata.stated():
            losses = {int(step): loss for step, loss in (metadata.checks or {}).items()}
            gains = [_gain(verdict) for verdict in metadata.verdicts]
            yield LearningRun(label, metadata.seed or 0, losses, metadata.kept_step or 0, gains)


def _clip_runs(
    experiment: Experiment, tuned: Mapping[str, Sequence[TunedClip]]
) -> Iterator[LearningRun]:
    for label, clips in tuned.items():
        for seed, clip in enumerate(clips, experiment.config.seed):
            gains = [_gain(clip.verdict)] if clip.verdict else []
            yield LearningRun(label, seed, clip.checks, clip.kept, gains)


def _gain(verdict: HeldOutVerdict) -> HeldOutGain:
    """Return a verdict as the report has it, which knows nothing of training."""
    return HeldOutGain(**verdict.model_dump(include={"what", "kept", "gain", "error", "items"}))


def _settings(config: RunConfig, learns: bool) -> Iterator[Setting]:
    """Yield the fields that differ from the defaults, without those that the run does not read."""
    values = config.model_dump(mode="json")
    values["learn"] = {name: values["learn"][name] for name in config.recipes}
    fields, defaults = known_fields(RunConfig, values), defaults_of(RunConfig, values)
    for name, value in flatten(values):
        default = defaults.get(name)
        default = list(default) if isinstance(default, tuple) else default
        is_read = name in fields and (learns or name.split(".")[0] not in _OF_LEARNING)
        if is_read and (name not in defaults or value != default):
            yield Setting(
                name,
                _value_text(value),
                _value_text(default) if name in defaults else None,
                fields[name].description or "",
            )


def _value_text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "()"
    return '""' if value == "" else str(value)
