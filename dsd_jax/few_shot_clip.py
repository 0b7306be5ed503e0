"""The CLIP that a config compares with, fine-tuned on the shots that prompts are learned from."""

import json
from pathlib import Path
from typing import Any

from dsd_jax.checkpoints import Checkpoints
from dsd_jax.clip.recipe import ClipRecipe
from dsd_jax.clip.tuning import fine_tune
from dsd_jax.few_shot import draws
from dsd_jax.rival import shots_for_clip


def tune_all(config: Any, workdir: Path, job: Any) -> dict[str, list]:
    """{"tuned-256": a CLIP per seed}, fine-tuned on the shots that prompts are learned from."""
    settings = ClipRecipe(**config.tune)  # finds mistakes before anything is computed
    tuned: dict[str, list] = {}
    for count, seed in draws(config, job):
        pixels, captions = shots_for_clip(job.clip, job.benchmark, config.shots_from, count, seed)
        name = f"clip-{count}-{seed}"
        about = {
            "clip": config.clip,
            "recipe": json.loads(config.tune.to_json()),
            "data": json.loads(config.data.to_json()),
            "shots": [config.shots_from, count, seed],
        }
        with Checkpoints(workdir / "checkpoints" / name, about) as checkpoints:
            found = fine_tune(
                job.clip, pixels, captions, settings, seed, name, checkpoints=checkpoints
            )
        tuned.setdefault(f"tuned-{count}", []).append(found.clip)
    return tuned
