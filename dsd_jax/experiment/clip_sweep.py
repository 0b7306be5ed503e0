"""The CLIP that a config compares with, fine-tuned on the shots that prompts are learned from."""

from pathlib import Path
from typing import Any

from dsd_jax.clip.tuning import fine_tune
from dsd_jax.config.run_config import RunConfig
from dsd_jax.experiment.clip_rows import shots_for_clip
from dsd_jax.experiment.sweep import draws
from dsd_jax.models.weights_digest import weights_digest
from dsd_jax.training.checkpoints import Checkpoints


def tune_all(config: RunConfig, workdir: Path, job: Any) -> dict[str, list]:
    """{"tuned-256": a CLIP per seed}, fine-tuned on the shots that prompts are learned from."""
    digest = weights_digest(job.clip.params)
    tuned: dict[str, list] = {}
    for count, seed in draws(config, job):
        pixels, captions, clusters = shots_for_clip(
            job.clip, job.benchmark, config.shots_from, count, seed
        )
        name = f"clip-{count}-{seed}"
        about = {
            "clip": config.clip,
            "clip_digest": digest,
            "clip_settings": job.clip.settings(),
            "recipe": config.tune.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json"),
            "shots": [config.shots_from, count, seed],
        }
        with Checkpoints(workdir / "checkpoints" / name, about) as checkpoints:
            found = fine_tune(
                job.clip,
                pixels,
                captions,
                config.tune,
                seed,
                name,
                clusters=clusters,
                checkpoints=checkpoints,
            )
        tuned.setdefault(f"tuned-{count}", []).append(found.clip)
    return tuned
