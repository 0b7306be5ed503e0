"""The three phases of pre-training, each resumable: VAE, text tower, text tower and UNet."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.config.pretrain_config import PretrainConfig
from dsd_jax.data.synthetic.scenes import caption, sample_scene
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.distributed import sharding
from dsd_jax.models.text_encoder import CLIPTextEncoder
from dsd_jax.pretraining import autoencoder_phase, denoiser_phase, reading_task
from dsd_jax.pretraining.network_shapes import schedule, text_config, unet_config, vae_config
from dsd_jax.pretraining.products import bundled_tokenizer
from dsd_jax.pretraining.scene_batches import to_pixels, training_stream
from dsd_jax.training.checkpoint_integrity import digest
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions, fit


def train_vae(config: PretrainConfig, workdir: Path) -> Any:
    """Phase 1; returns the averaged, whitened parameters."""
    vae, settings, stream = vae_config(config), config.vae, training_stream()
    mesh = sharding.host_mesh()
    sample = to_pixels(stream.batch([config.seed, 0], 2048)[0])
    transform = autoencoder_phase.optimiser(settings.learning_rate, settings.steps)
    state = sharding.replicate(mesh, autoencoder_phase.init(vae, transform, config.seed, sample))
    parts = (
        ("encoder", settings.encoder_steps, 2 * settings.batch, False),
        ("vae", settings.steps, settings.batch, True),
    )
    with Checkpoints(workdir / "vae", settings.model_dump()) as checkpoints:
        for name, steps, rows, decoder in parts:
            state = fit(
                state,
                autoencoder_phase.update_function(vae, transform, decoder=decoder),
                lambda step, rows=rows: sharding.shard_rows(
                    mesh, autoencoder_phase.batch(stream, config.seed, rows, step)
                ),
                steps,
                options=LoopOptions(
                    name,
                    checkpoints,
                    workdir / "metrics.jsonl",
                    save_seconds=config.save_seconds,
                ),
            )
    params = autoencoder_phase.whiten(jax.device_get(state.average["vae"]), vae, sample)
    print(f"vae: {autoencoder_phase.psnr(params, vae, sample[:512]):.1f} dB on seen artists")
    return params


def train_reader(config: PretrainConfig, workdir: Path, first: Any) -> Any:
    """Phase 2, from `first`'s text tower if given; returns {"text", "reader"}."""
    settings, mesh, stream = config.text, sharding.host_mesh(), training_stream()
    tokenizer, concepts = bundled_tokenizer(), stream.sprites.concepts
    text, key = text_config(config, len(tokenizer)), jax.random.key(config.seed)
    params = {
        "text": first["text"] if first else _random_tower(text, key),
        "reader": reading_task.init_reader(
            jax.random.fold_in(key, 1), text.hidden_size, len(concepts)
        ),
    }
    transform = reading_task.optimiser(settings.learning_rate, settings.steps)
    state = sharding.replicate(mesh, reading_task.State(params, transform.init(params)))

    def batch(step: int) -> tuple:
        rng = np.random.default_rng([config.seed, 6, step])
        some = range(settings.batch)
        scenes = [sample_scene(rng, stream.pairs, stream.styles) for _ in some]
        texts = [caption(scene, concepts, rng) for scene in scenes]
        rows = tokenize(tokenizer, texts), reading_task.sides(scenes, texts, concepts)
        return sharding.shard_rows(mesh, rows)

    identity = {"start": config.start, "text": settings.model_dump()}
    with Checkpoints(workdir / "text", identity) as checkpoints:
        state = fit(
            state,
            reading_task.update_function(text, transform),
            batch,
            settings.steps,
            options=LoopOptions(
                "text",
                checkpoints,
                workdir / "metrics.jsonl",
                save_seconds=config.save_seconds,
            ),
        )
    return jax.device_get(state.params)


def _random_tower(text: Any, key: jax.Array) -> Any:
    ids = jnp.zeros((1, text.positions), jnp.int32)
    return jax.jit(CLIPTextEncoder(text).init)(key, ids)["params"]


def train_denoiser(
    config: PretrainConfig, workdir: Path, vae_params: Any, read: Any, first: Any
) -> Any:
    """Phase 3, from what phase 2 has `read` and `first`'s UNet if given.

    Returns:
        The averaged parameters {"text", "unet"}.
    """
    settings, mesh, stream = config.denoiser, sharding.host_mesh(), training_stream()
    tokenizer = bundled_tokenizer()
    text, unet = text_config(config, len(tokenizer)), unet_config(config)
    transform = denoiser_phase.optimiser(settings.learning_rate, settings.steps, settings.cooldown)
    key = jax.random.key(config.seed)
    params = {**read, "unet": first["unet"] if first else denoiser_phase.init_unet(unet, key)}
    state = sharding.replicate(mesh, denoiser_phase.start(params, transform))
    loss = denoiser_phase.loss_function(unet, text, schedule(config))
    encode = denoiser_phase.encoder(vae_config(config), vae_params)
    latents = denoiser_phase.Latents(encode, stream, config.seed, settings.pool, settings.passes)

    def batch(step: int) -> denoiser_phase.Batch:
        rows = denoiser_phase.batch(
            latents, lambda texts: tokenize(tokenizer, texts), config.seed, settings.batch, step
        )
        return sharding.shard_rows(mesh, rows)

    identity = {
        # More steps, or fewer, are still the same run.
        "denoiser": settings.model_dump(exclude={"steps", "cooldown"}),
        "unet": config.unet.model_dump(),
        "text": config.text.model_dump(),
        "start": config.start,
        "vae_weights": digest(vae_params),
    }
    with Checkpoints(workdir / "denoiser", identity) as checkpoints:
        state = fit(
            state,
            denoiser_phase.update_function(loss, transform, mesh, config.seed),
            batch,
            settings.steps,
            options=LoopOptions(
                "denoiser",
                checkpoints,
                workdir / "metrics.jsonl",
                save_seconds=config.save_seconds,
            ),
        )
    average = jax.device_get(state.average)
    return {part: average[part] for part in ("text", "unet")}
