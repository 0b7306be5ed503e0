"""Training the bundled CLIP from scratch, resumable as the other phases are."""

from pathlib import Path
from typing import Any

import jax

from dsd_jax.clip.clip_model import without_padding
from dsd_jax.config.pretrain_config import ClipPretrainConfig
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.distributed import sharding
from dsd_jax.pretraining import clip_step
from dsd_jax.pretraining.denoiser_phase import Latents, optimiser, start
from dsd_jax.pretraining.network_shapes import clip_config
from dsd_jax.pretraining.products import bundled_tokenizer
from dsd_jax.pretraining.scene_batches import training_stream
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions, fit


def train_clip(config: ClipPretrainConfig, workdir: Path) -> Any:
    """Train it on the scenes that the bundled Stable Diffusion saw; returns averaged parameters."""
    settings, mesh, tokenizer = config.contrast, sharding.host_mesh(), bundled_tokenizer()
    shape = clip_config(config, tokenizer)
    transform = optimiser(settings.learning_rate, settings.steps, settings.cooldown)
    state = sharding.replicate(mesh, start(clip_step.init(shape, config.seed), transform))
    pool = Latents(lambda x: x, training_stream(), config.seed, settings.pool, settings.passes)

    def batch(step: int) -> clip_step.Batch:
        rows = clip_step.batch(
            pool,
            lambda texts: without_padding(tokenize(tokenizer, texts), shape.text),
            config.seed,
            settings.batch,
            step,
        )
        return sharding.shard_rows(mesh, rows)

    identity = config.model_dump(include={"text", "vision", "contrast"})
    for changeable in ("steps", "cooldown"):  # more steps, or fewer, are still the same run
        del identity["contrast"][changeable]
    with Checkpoints(workdir / "clip", {**identity, "projection": config.projection}) as saved:
        state = fit(
            state,
            clip_step.update_function(shape, transform),
            batch,
            settings.steps,
            options=LoopOptions(
                "clip",
                saved,
                workdir / "metrics.jsonl",
                save_seconds=config.save_seconds,
            ),
        )
    return jax.device_get(state.average)
