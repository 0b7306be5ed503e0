"""Trains a bundled model from scratch, or resumes in its workdir."""

import os
from collections.abc import Sequence
from pathlib import Path

from dsd_jax.cli import RunParser, run_command
from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig, kind_of
from dsd_jax.io.banner import show_banner
from dsd_jax.io.storage import make_local_folder


def make_parser() -> RunParser:
    """Return the parser of the command line."""
    return RunParser(
        "pretrain",
        "Trains the bundled Stable Diffusion or CLIP from scratch; resumes where the workdir left "
        "off.",
        "dsd-jax pretrain --config=pretrain_tiny --workdir=runs/pretrain",
        kind=kind_of,
    )


def main(argv: Sequence[str]) -> None:
    """Train a Stable Diffusion or a CLIP; write the model in the Hugging Face layout."""
    flags = make_parser().parse_args(argv)
    workdir = make_local_folder(flags.workdir, "--workdir")
    from dsd_jax.distributed import processes  # heavy: after the arguments are known to be good
    from dsd_jax.distributed.devices import check_devices
    from dsd_jax.distributed.sharding import simulate_cpu_devices
    from dsd_jax.errors import UserError
    from dsd_jax.training.metrics_trackers import check_tracker

    config = flags.config
    check_tracker(config.tracker)
    models = {"stable-diffusion": pretrain_stable_diffusion, "clip": pretrain_clip}
    simulate_cpu_devices(config.cpu_devices)
    processes.join()
    check_devices()
    if processes.are_several():
        raise UserError("pretrain trains a small model on one host; start it on one alone.")
    if not flags.quiet:
        show_plan(config, workdir)
    models[config.model](config, workdir)


def show_plan(config: PretrainConfig | ClipPretrainConfig, workdir: os.PathLike[str]) -> None:
    """Print the banner: what is trained in which phases, and where the model goes."""
    from dsd_jax.diffusion.model_facts import device_fact

    names = ("vae", "text", "denoiser", "contrast")
    steps = {name: getattr(getattr(config, name, None), "steps", 0) for name in names}
    facts = {
        "device": device_fact("float32"),
        "steps": ", ".join(f"{name} {count:,}" for name, count in steps.items() if count),
        "results": os.path.join(workdir, "model"),
    }
    show_banner(f"pretrain: {config.model}", facts)


def pretrain_stable_diffusion(config: PretrainConfig, workdir: Path) -> None:
    """Train VAE, text encoder and UNet."""
    from dsd_jax.pretraining.autoencoder_phase import train_vae
    from dsd_jax.pretraining.caption_reading_phase import train_reader
    from dsd_jax.pretraining.denoiser_phase import train_denoiser
    from dsd_jax.pretraining.export import starting_params, write_model, write_samples

    start = starting_params(config)
    vae = start["vae"] if start else train_vae(config, workdir)
    read = train_reader(config, workdir, start)
    params = train_denoiser(config, workdir, vae_params=vae, text_params=read, start=start)
    model = write_model(config, workdir, {"vae": vae, **params})
    write_samples(model, workdir)


def pretrain_clip(config: ClipPretrainConfig, workdir: Path) -> None:
    """Train both towers of a CLIP at once."""
    from dsd_jax.pretraining.clip_phase import train_clip
    from dsd_jax.pretraining.export import write_clip

    write_clip(config, workdir, train_clip(config, workdir))


if __name__ == "__main__":
    run_command(main)
