"""All that a config asks to be learned from few shots: every recipe, number of shots and seed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dsd_jax.benchmarks.splits import count_shots, draw_shots, load_examples, load_shots
from dsd_jax.benchmarks.table_scores import LearnedPrompts
from dsd_jax.config.run_config import RunConfig
from dsd_jax.data.examples import Benchmark
from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.few_shot.learning import learn
from dsd_jax.few_shot.support_set import look_at, read_by
from dsd_jax.prompts.prompt_files import is_complete, read_metadata, read_prompts, write_prompts
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.metrics_log import Log
from dsd_jax.training.same_run import differences


def draws(config: RunConfig, job: Any) -> Iterator[tuple[int, int]]:
    """Yield (number of shots, seed) of every draw of them, each once."""
    asked = config.shots if config.recipes else ()
    # Numbers and fractions can be equally many.
    for count in dict.fromkeys(count_shots(job.benchmark, config.shots_from, x) for x in asked):
        for seed in range(config.seed, config.seed + config.seeds):
            yield count, seed


def check_shots(config: RunConfig, benchmark: Benchmark) -> None:
    """Check, before a model is loaded, that there are as many shots as are asked for.

    Raises:
        UserError: there are not, or there is no such split.
    """
    for asked in config.shots if config.recipes else ():
        examples = load_examples(benchmark, config.shots_from, "shots_from").unfolded()
        count = count_shots(benchmark, config.shots_from, asked)
        draw_shots(config.shots_from, examples.kinds, count, config.seed)


def learn_all(config: RunConfig, workdir: Path, job: Any) -> dict[str, Any]:
    """{"lora-256": `evaluation.LearnedPrompts`}: from the workdir where it is there already."""
    learned: dict[str, LearnedPrompts] = {}
    for count, seed in draws(config, job):
        for label, tree in learn_from(config, workdir, job, count, seed).items():
            one = LearnedPrompts(config.learn[label].methods, [], kinds=config.learn[label].kinds)
            learned.setdefault(f"{label}-{count}", one).prompts.append(tree)
    return learned


def learn_from(
    config: RunConfig, workdir: Path, job: Any, count: int, seed: int
) -> dict[str, dict]:
    """What every recipe learns from one draw of shots, which the frozen model sees once for all."""
    learned, shots = {}, None
    for label in config.recipes:
        folder = workdir / "prompts" / f"{label}-{count}" / f"seed-{seed}"
        about = description(config, job, label, count, seed)
        if processes.broadcast_from_main(is_learned(folder, about)):
            learned[label] = read_prompts(folder, job.model.unet)
            continue
        if shots is None:
            items = load_shots(job.encoders, job.benchmark, config.shots_from, count, seed)
            recipes = [config.learn[name].on_layers(job.layers) for name in config.recipes]
            wanted = read_by(job.model.unet, recipes)
            shots = look_at(job.model, items, job.timesteps, seed, config.noises, wanted)
        found = learn_one(config, workdir, job, shots, label, about)
        if processes.is_main():
            write_prompts(folder, found.prompts, {**about, "kept_step": found.kept})
        learned[label] = found.prompts
    return learned


def learn_one(
    config: RunConfig, workdir: Path, job: Any, shots: Any, label: str, about: dict[str, Any]
) -> Any:
    """Learn by one recipe, with checkpoints in the workdir and a line on how it went."""
    name = f"{label}-{about['shots']}-{about['seed']}"
    with Checkpoints(workdir / "checkpoints" / name, about) as checkpoints:
        found = learn(
            job.model,
            shots,
            config.learn[label].on_layers(job.layers),
            about["seed"],
            checkpoints=checkpoints,
            log=workdir / "metrics.jsonl",
            progress=name,
        )
    if processes.is_main():
        with Log(workdir / "metrics.jsonl") as log:
            log.write({"phase": name, "held_out": found.checks, "kept_step": found.kept})
    return found


def description(config: RunConfig, job: Any, label: str, count: int, seed: int) -> dict[str, Any]:
    """All that decides what is learned; it is written beside the prompts."""
    return {
        "weights": config.weights,
        "weights_digest": job.model.weights_digest,
        "dtype": job.model.dtype.name,
        "recipe": config.learn[label].model_dump(mode="json"),
        "layers": list(job.layers),
        "timesteps": job.timesteps.tolist(),
        "noises": config.noises,
        "data": config.data.model_dump(mode="json"),
        "shots_from": config.shots_from,
        "shots": count,
        "seed": seed,
    }


def is_learned(folder: Path, about: dict[str, Any]) -> bool:
    """Whether an earlier run left these very prompts; `UserError` if it left others."""
    if not is_complete(folder):
        return False
    found = read_metadata(folder).stated()
    if different := differences({name: found.get(name) for name in about}, about):
        raise UserError(
            f"{folder} was learned with {different}; take another --workdir, or delete that folder."
        )
    return True
