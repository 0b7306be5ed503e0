"""Trains the bundled Stable Diffusion from scratch, or goes on where the workdir left off."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dsd_jax.command import ConfigParser, run_command


def main(argv: Sequence[str]) -> None:
    """Train VAE, text tower and UNet; write the model in the Hugging Face layout."""
    flags = ConfigParser(
        "pretrain",
        "Trains the bundled Stable Diffusion from scratch; resumes where the workdir left off.",
        "python -m dsd_jax.pretrain --config=configs/pretrain_tiny.py --workdir=runs/pretrain",
    ).parse_args(argv)
    from dsd_jax import hosts  # heavy: after the arguments are known to be good
    from dsd_jax.errors import UserError
    from dsd_jax.sharding import simulate_cpu_devices

    simulate_cpu_devices(flags.config.cpu_devices)
    hosts.join()
    if hosts.are_several():
        raise UserError("pretrain trains a small model on one host; start it on one alone.")
    first = starting_weights(flags.config)
    vae = first["vae"] if first else train_vae(flags.config, flags.workdir)
    text = train_reader(flags.config, flags.workdir, first)
    params = train_denoiser(flags.config, flags.workdir, vae, text, first)
    model = write_model(flags.config, flags.workdir, {"vae": vae, **params})
    write_samples(model, flags.workdir)


def vae_config(config: Any):
    """The VAE's shape."""
    from dsd_jax.data.scenes import SIDE
    from dsd_jax.models.vae import VAEConfig

    return VAEConfig(
        block_out_channels=tuple(config.vae.block_out_channels),
        layers_per_block=1,
        latent_channels=config.vae.latent_channels,
        norm_num_groups=config.vae.norm_num_groups,
        scaling_factor=1.0,  # the latents are whitened
        sample_size=SIDE,
    )


def text_config(config: Any, vocabulary: int):
    """The text tower's shape."""
    from dsd_jax.models.text import TextConfig

    return TextConfig(
        vocab_size=vocabulary,
        hidden_size=config.text.hidden_size,
        intermediate_size=4 * config.text.hidden_size,
        layers=config.text.layers,
        heads=config.text.heads,
        positions=77,
        activation="quick_gelu",
        norm_eps=1e-5,
    )


def unet_config(config: Any):
    """The UNet's shape: cross-attention at every resolution."""
    from dsd_jax.models.unet import UNetConfig

    vae, levels = vae_config(config), len(config.unet.block_out_channels)
    return UNetConfig(
        sample_size=vae.sample_size // vae.downscale,
        in_channels=vae.latent_channels,
        out_channels=vae.latent_channels,
        block_out_channels=tuple(config.unet.block_out_channels),
        layers_per_block=1,
        cross_attention_dim=config.text.hidden_size,
        heads=(config.unet.heads,) * levels,
        depths=(1,) * levels,
        down_attention=(True,) * levels,
        up_attention=(True,) * levels,
        linear_projection=True,
        upcast_attention=False,
        norm_num_groups=config.unet.norm_num_groups,
        norm_eps=1e-5,
    )


def schedule(config: Any):
    """The noise schedule: Stable Diffusion's betas, and what the UNet predicts."""
    from dsd_jax.diffusion import Schedule

    return Schedule(prediction=config.denoiser.prediction)


def starting_weights(config: Any) -> dict[str, Any] | None:
    """The weights of the model that `config.start` names, whose VAE stays as it is; or None.

    If that model predicts something else (noise or v), the UNet's last layer starts anew.

    Raises:
        UserError: that model has another shape than this config's.
    """
    if not config.start:
        return None
    import jax
    import jax.numpy as jnp

    from dsd_jax.errors import UserError
    from dsd_jax.weights.load import load

    model = load(config.start)
    expected = {
        "unet": unet_config(config),
        "vae": vae_config(config),
        "text": text_config(config, len(bundled_tokenizer())),
    }
    for part, shape in expected.items():
        if getattr(model, part) != shape:
            raise UserError(
                f"--config.start={config.start}: its {part} is {getattr(model, part)}, but this "
                f"config makes {shape}; start from a model of the same shape, or from none."
            )
    if model.schedule == schedule(config):
        return model.params
    unet = model.params["unet"]
    anew = {"conv_out": jax.tree.map(jnp.zeros_like, unet["conv_out"])}
    return {**model.params, "unet": {**unet, **anew}}


def train_vae(config: Any, workdir: Path) -> Any:
    """Phase 1; returns the averaged, whitened parameters."""
    import jax

    from dsd_jax import sharding
    from dsd_jax.checkpoints import Checkpoints
    from dsd_jax.fitting import fit
    from dsd_jax.pretraining import autoencoder
    from dsd_jax.pretraining.pictures import to_pixels, training_stream

    vae, settings, mesh, stream = (
        vae_config(config),
        config.vae,
        sharding.data_mesh(),
        training_stream(),
    )
    sample = to_pixels(stream.batch([config.seed, 0], 2048)[0])
    transform = autoencoder.optimiser(settings.learning_rate, settings.steps)
    state = sharding.replicate(mesh, autoencoder.init(vae, transform, config.seed, sample))
    phases = (
        ("encoder", settings.encoder_steps, 2 * settings.batch, False),
        ("vae", settings.steps, settings.batch, True),
    )
    with Checkpoints(workdir / "vae", settings.to_dict()) as checkpoints:
        for name, steps, rows, decoder in phases:
            state = fit(
                name,
                state,
                autoencoder.update_function(vae, transform, decoder=decoder),
                lambda step, rows=rows: sharding.shard_rows(
                    mesh, autoencoder.batch(stream, config.seed, rows, step)
                ),
                steps,
                checkpoints,
                workdir / "metrics.jsonl",
                save_seconds=config.save_seconds,
            )
    params = autoencoder.whiten(jax.device_get(state.average["vae"]), vae, sample)
    print(f"vae: {autoencoder.psnr(params, vae, sample[:512]):.1f} dB on seen artists")
    return params


def train_reader(config: Any, workdir: Path, first: Any) -> Any:
    """Phase 2: the text tower learns to read; returns {"text", "reader"}."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax

    from dsd_jax import sharding
    from dsd_jax.checkpoints import Checkpoints
    from dsd_jax.data.scenes import caption, sample_scene
    from dsd_jax.fitting import fit
    from dsd_jax.models.text import CLIPText
    from dsd_jax.pretraining import reading
    from dsd_jax.pretraining.pictures import training_stream
    from dsd_jax.tokens import tokenise

    settings, mesh, stream = config.text, sharding.data_mesh(), training_stream()
    tokenizer, concepts = bundled_tokenizer(), stream.sprites.concepts
    text, key = text_config(config, len(tokenizer)), jax.random.key(config.seed)
    tower = first and first["text"]
    if not tower:
        ids = jnp.zeros((1, text.positions), jnp.int32)
        tower = jax.jit(CLIPText(text).init)(key, ids)["params"]
    reader = reading.init_reader(jax.random.fold_in(key, 1), text.hidden_size, len(concepts))
    params = {"text": tower, "reader": reader}
    rate = optax.warmup_cosine_decay_schedule(
        0.0, settings.learning_rate, settings.steps // 10, settings.steps
    )
    transform = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))
    state = sharding.replicate(mesh, reading.State(params, transform.init(params)))

    def batch(step: int) -> tuple:
        rng = np.random.default_rng([config.seed, 6, step])
        some = range(settings.batch)
        scenes = [sample_scene(rng, stream.pairs, stream.styles) for _ in some]
        texts = [caption(scene, concepts, rng) for scene in scenes]
        rows = tokenise(tokenizer, texts), reading.sides(scenes, len(concepts))
        return sharding.shard_rows(mesh, rows)

    identity = {"start": config.start, "text": settings.to_dict()}
    with Checkpoints(workdir / "text", identity) as checkpoints:
        state = fit(
            "text",
            state,
            reading.update_function(text, transform),
            batch,
            settings.steps,
            checkpoints,
            workdir / "metrics.jsonl",
            save_seconds=config.save_seconds,
        )
    return jax.device_get(state.params)


def train_denoiser(config: Any, workdir: Path, vae_params: Any, read: Any, first: Any) -> Any:
    """Phase 3, from what phase 2 has `read` and `first`'s UNet if given.

    Returns the averaged parameters {"text", "unet"}.
    """
    import jax

    from dsd_jax import sharding
    from dsd_jax.checkpoints import Checkpoints, digest
    from dsd_jax.fitting import fit
    from dsd_jax.pretraining import denoiser
    from dsd_jax.pretraining.pictures import training_stream
    from dsd_jax.tokens import tokenise

    settings, mesh, stream = config.denoiser, sharding.data_mesh(), training_stream()
    tokenizer = bundled_tokenizer()
    text, unet = text_config(config, len(tokenizer)), unet_config(config)
    transform = denoiser.optimiser(settings.learning_rate, settings.steps, settings.cooldown)
    params = first and first["unet"] or denoiser.init_unet(unet, jax.random.key(config.seed))
    state = sharding.replicate(mesh, denoiser.start({**read, "unet": params}, transform))
    loss = denoiser.loss_function(unet, text, schedule(config))
    update = denoiser.update_function(loss, transform, mesh, config.seed)
    encode = denoiser.encoder(vae_config(config), vae_params)
    latents = denoiser.Latents(encode, stream, config.seed, settings.pool, settings.passes)

    def batch(step: int) -> denoiser.Batch:
        rows = denoiser.batch(
            latents, lambda texts: tokenise(tokenizer, texts), config.seed, settings.batch, step
        )
        return sharding.shard_rows(mesh, rows)

    identity = {
        # More steps, or fewer, are still the same run.
        "denoiser": {k: v for k, v in settings.items() if k not in ("steps", "cooldown")},
        "unet": config.unet.to_dict(),
        "text": config.text.to_dict(),
        "start": config.start,
        "vae_weights": digest(vae_params),
    }
    with Checkpoints(workdir / "denoiser", identity) as checkpoints:
        state = fit(
            "denoiser",
            state,
            update,
            batch,
            settings.steps,
            checkpoints,
            workdir / "metrics.jsonl",
            save_seconds=config.save_seconds,
        )
    average = jax.device_get(state.average)
    return {part: average[part] for part in ("text", "unet")}


def bundled_tokenizer() -> Any:
    """The tokenizer that `dsd_jax.assets.build_tokenizer` made for the scenes' captions."""
    from dsd_jax.weights.tokenizer import read_tokenizer

    return read_tokenizer(Path(__file__).parent / "assets" / "tiny" / "tokenizer")


def write_model(config: Any, workdir: Path, params: Any) -> Any:
    """Write the model as a folder that `dsd_jax.load` and PyTorch diffusers read, in float16."""
    from dsd_jax.model import Model
    from dsd_jax.weights.save import save

    tokenizer, vae = bundled_tokenizer(), vae_config(config)
    model = Model(
        name=str(workdir / "model"),
        unet=unet_config(config),
        vae=vae,
        text=text_config(config, len(tokenizer)),
        schedule=schedule(config),
        params=params,
        tokenizer=tokenizer,
        image_size=vae.sample_size,
    )
    save(model, workdir / "model")
    print(f"the model is in {workdir / 'model'}")
    return model


def write_samples(model: Any, workdir: Path) -> None:
    """Draw some captions of scenes, as a first look at what was learned."""
    from dsd_jax.pretraining.samples import CAPTIONS, contact_sheet, sample

    contact_sheet(sample(model, CAPTIONS, seed=0), CAPTIONS).save(workdir / "samples.png")
    print(f"samples are in {workdir / 'samples.png'}")


if __name__ == "__main__":
    run_command(main)
