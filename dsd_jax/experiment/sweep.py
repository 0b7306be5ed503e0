"""The few-shot sweep of a config, over recipes, numbers of shots and seeds."""

from collections.abc import Iterator
from typing import Any

from etils import epath

from dsd_jax.benchmarks.splits import ShotDraw, count_shots, encode_shots
from dsd_jax.benchmarks.table_rows import LearnedPrompts
from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.experiment.setup import Experiment
from dsd_jax.few_shot.prompt_training import TrainedPrompts, train_prompts
from dsd_jax.few_shot.support_set import (
    SupportSet,
    cache_frozen_outputs,
    outputs_read_by,
)
from dsd_jax.io.progress import Stage, Work
from dsd_jax.io.terminal import say
from dsd_jax.prompts.prompt_files import is_complete, read_metadata, read_prompts, write_prompts
from dsd_jax.training.checkpoint_digests import differences
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions
from dsd_jax.training.metrics_log import MetricsLog


def shot_draws(experiment: Experiment) -> Iterator[ShotDraw]:
    """Yield every draw of shots once: the same number may be asked for as count and as fraction."""
    config = experiment.config
    requested = config.shots if config.recipes else ()
    counts = [count_shots(experiment.benchmark, config.shots_from, x) for x in requested]
    for count in dict.fromkeys(counts):
        for seed in range(config.seed, config.seed + config.seeds):
            yield ShotDraw(config.shots_from, count, seed)


def prompts_folder(experiment: Experiment, label: str, draw: ShotDraw) -> epath.Path:
    """Return the folder of the prompts "lora-256" that are learned from a draw."""
    return experiment.folder / "prompts" / label / f"seed-{draw.seed}"


def prompt_sweep(experiment: Experiment) -> dict[str, LearnedPrompts]:
    """Return {"lora-256": prompts per seed}, which are read where the workdir has them already."""
    recipes = experiment.config.learn
    prompts: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for draw in shot_draws(experiment):
        for label, learned in _learn_from_draw(experiment, draw).items():
            prompts.setdefault((label, draw.count), []).append(learned)
    return {
        f"{label}-{count}": LearnedPrompts(
            recipes[label].methods, of_seeds, kinds=recipes[label].kinds
        )
        for (label, count), of_seeds in prompts.items()
    }


def _learn_from_draw(experiment: Experiment, draw: ShotDraw) -> dict[str, dict[str, Any]]:
    """Return prompts by recipe; the frozen model sees the shots once for all recipes."""
    config, model = experiment.config, experiment.model
    prompts, shots = {}, None
    for label in config.recipes:
        folder = prompts_folder(experiment, f"{label}-{draw.count}", draw)
        metadata = _metadata(experiment, label, draw)
        if processes.broadcast_from_main(_is_learned(folder, metadata)):
            prompts[label] = read_prompts(folder, model.unet)
            continue
        if shots is None:
            shots = _support_set(experiment, draw)
        learned = _learn(experiment, shots, label, metadata)
        if processes.is_main():
            write_prompts(folder, learned.prompts, {**metadata, **learned.record()})
        prompts[label] = learned.prompts
    return prompts


def _support_set(experiment: Experiment, draw: ShotDraw) -> SupportSet:
    """Return the drawn shots with the frozen model's outputs that the recipes read."""
    config, model, shown = experiment.config, experiment.model, experiment.progress
    items = encode_shots(experiment.encoders, experiment.benchmark, draw, progress=shown)
    recipes = [config.learn[name].on_layers(experiment.layers) for name in config.recipes]
    with Stage(f"frozen outputs of {draw.count} shots", 1, shown=shown) as stage:
        return cache_frozen_outputs(
            model,
            items,
            experiment.timesteps,
            draw.seed,
            noises=config.noises,
            outputs=outputs_read_by(model.unet, recipes),
            work=Work(stage, 1),
        )


def _learn(
    experiment: Experiment, shots: SupportSet, label: str, metadata: dict[str, Any]
) -> TrainedPrompts:
    """Learn by one recipe, with checkpoints and a line on how it went in the workdir."""
    name, folder = f"{label}-{metadata['shots']}-{metadata['seed']}", experiment.folder
    with Checkpoints(folder / "checkpoints" / name, metadata) as checkpoints:
        learned = train_prompts(
            experiment.model,
            shots,
            experiment.config.learn[label].on_layers(experiment.layers),
            metadata["seed"],
            options=LoopOptions(
                name,
                checkpoints,
                folder / "metrics.jsonl",
                tracker=experiment.config.tracker,
                profile=experiment.config.profile,
                progress=experiment.progress,
                title=f"learning {label}-{metadata['shots']}, seed {metadata['seed']}",
            ),
        )
    if processes.is_main():
        with MetricsLog(folder / "metrics.jsonl") as log:
            log.write({"phase": name, "held_out": learned.checks, "kept_step": learned.kept})
    if experiment.progress:
        for verdict in learned.verdicts:
            say(f"{label}-{metadata['shots']}, seed {metadata['seed']}: {verdict}")
    return learned


def _metadata(experiment: Experiment, label: str, draw: ShotDraw) -> dict[str, Any]:
    """Return the settings that learned prompts depend on; they are written beside them."""
    config = experiment.config
    return {
        "weights": config.weights,
        "weights_digest": experiment.model.weights_digest,
        "dtype": experiment.model.dtype.name,
        "recipe": config.learn[label].model_dump(mode="json"),
        "layers": list(experiment.layers),
        "timesteps": experiment.timesteps.tolist(),
        "noises": config.noises,
        "data": config.data.model_dump(mode="json"),
        "shots_from": draw.split,
        "shots": draw.count,
        "seed": draw.seed,
    }


def _is_learned(folder: epath.Path, metadata: dict[str, Any]) -> bool:
    """Return whether an earlier run left these very prompts; `UserError` if it left others."""
    if not is_complete(folder):
        return False
    stored = read_metadata(folder).stated()
    if different := differences({name: stored.get(name) for name in metadata}, metadata):
        raise UserError(
            f"{folder} was learned with {different}; take another --workdir, or delete that folder."
        )
    return True
