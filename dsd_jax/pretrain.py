"""Trains a bundled model from scratch, or resumes in its workdir."""

from collections.abc import Sequence
from pathlib import Path

from dsd_jax.cli import RunParser, run_command
from dsd_jax.config.pretrain_config import ClipPretrainConfig, PretrainConfig, kind_of
from dsd_jax.io.storage import make_local_folder


def main(argv: Sequence[str]) -> None:
    """Train a Stable Diffusion or a CLIP; write the model in the Hugging Face layout."""
    flags = RunParser(
        "pretrain",
        "Trains the bundled Stable Diffusion or CLIP from scratch; resumes where the workdir left "
        "off.",
        "python -m dsd_jax.pretrain --config=configs/pretrain_tiny.py --workdir=runs/pretrain",
        kind=kind_of,
    ).parse_args(argv)
    workdir = make_local_folder(flags.workdir, "--workdir")
    from dsd_jax.distributed import processes  # heavy: after the arguments are known to be good
    from dsd_jax.distributed.devices import check_devices
    from dsd_jax.distributed.sharding import simulate_cpu_devices
    from dsd_jax.errors import UserError

    config = flags.config
    models = {"stable-diffusion": pretrain_stable_diffusion, "clip": pretrain_clip}
    simulate_cpu_devices(config.cpu_devices)
    processes.join()
    check_devices()
    if processes.are_several():
        raise UserError("pretrain trains a small model on one host; start it on one alone.")
    models[config.model](config, workdir)


def pretrain_stable_diffusion(config: PretrainConfig, workdir: Path) -> None:
    """Train VAE, text tower and UNet."""
    from dsd_jax.pretraining import phases
    from dsd_jax.pretraining.products import starting_weights, write_model, write_samples

    first = starting_weights(config)
    vae = first["vae"] if first else phases.train_vae(config, workdir)
    read = phases.train_reader(config, workdir, first)
    params = phases.train_denoiser(config, workdir, vae, read, first)
    model = write_model(config, workdir, {"vae": vae, **params})
    write_samples(model, workdir)


def pretrain_clip(config: ClipPretrainConfig, workdir: Path) -> None:
    """Train both towers of a CLIP at once."""
    from dsd_jax.pretraining.clip_phase import train_clip
    from dsd_jax.pretraining.products import write_clip

    write_clip(config, workdir, train_clip(config, workdir))


if __name__ == "__main__":
    run_command(main)
