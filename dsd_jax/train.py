"""Learns prompts from a few shots as a config says, then evaluates them beside zero-shot."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_jax.command import ConfigParser, run_command


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = ConfigParser(
        "train",
        "Learns prompts from a few shots, then evaluates; the same command resumes a stopped run.",
        "python -m dsd_jax.train --config=configs/emoji.py --workdir=runs/emoji",
    ).parse_args(argv)
    from dsd_jax import run  # heavy: after the arguments are known to be good

    job = run.start(flags.config, flags.workdir)
    learned = learn_all(flags.config, flags.workdir, job)
    run.report(flags.config, flags.workdir, job, learned)


def learn_all(config: Any, workdir: Path, job: Any) -> dict[str, list[dict]]:
    """{"lora-256": a prompts pytree per seed}: from the workdir where it is there already."""
    from dsd_jax.benchmark import load_split

    pool = load_split(job.model, config.shots_from)
    return {
        f"{label}-{shots}": [
            learn_one(config, workdir, job, pool, label, shots, seed)
            for seed in range(config.seed, config.seed + config.seeds)
        ]
        for shots in config.shots
        for label in config.learn
    }


def learn_one(
    config: Any, workdir: Path, job: Any, pool: Any, label: str, shots: int, seed: int
) -> dict[str, Any]:
    """Learn one set of prompts and write it to the workdir, or read what an earlier run wrote."""
    from dsd_jax.benchmark import draw_shots
    from dsd_jax.checkpoints import Checkpoints
    from dsd_jax.errors import UserError
    from dsd_jax.learning import learn
    from dsd_jax.prompt_files import read_about, read_prompts, write_prompts
    from dsd_jax.weights.digest import weights_digest

    folder = workdir / "prompts" / f"{label}-{shots}" / f"seed-{seed}"
    about = {
        "weights": config.weights,
        "weights_digest": weights_digest(job.model.params),
        "recipe": json.loads(config.learn[label].to_json()),
        "layers": list(job.layers),
        "timesteps": job.timesteps.tolist(),
        "shots_from": config.shots_from,
        "shots": shots,
        "seed": seed,
    }
    if folder.exists():
        found = read_about(folder)
        if {name: found.get(name) for name in about} != about:
            raise UserError(
                f"{folder} was learned with other settings; take another --workdir, or delete it."
            )
        return read_prompts(folder, job.model.unet)
    name = f"{label}-{shots} seed {seed}"
    with Checkpoints(workdir / "checkpoints" / f"{label}-{shots}-{seed}", about) as checkpoints:
        learned = learn(
            job.model,
            draw_shots(pool, shots, seed),
            job.timesteps,
            recipe(config.learn[label], job.layers),
            seed,
            checkpoints=checkpoints,
            log=workdir / "metrics.jsonl",
            progress=name,
        )
    log(workdir, {"prompts": folder.parent.name, "seed": seed, "held_out": learned.checks})
    write_prompts(folder, learned.prompts, {**about, "kept_step": learned.kept})
    return learned.prompts


def recipe(settings: Any, layers: Sequence[str]) -> Any:
    """The library's `Recipe` from a config's fields."""
    from dsd_jax.shots import Recipe

    fields = {
        name: tuple(value) if isinstance(value, list | tuple) else value
        for name, value in settings.items()
    }
    return Recipe(layers=tuple(layers), **fields)


def log(workdir: Path, line: dict[str, Any]) -> None:
    """Append a JSON line to `metrics.jsonl`."""
    with (workdir / "metrics.jsonl").open("a") as lines:
        lines.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    run_command(main)
