"""Learns prompts from a few shots as a config says, then evaluates them beside zero-shot."""

from collections.abc import Sequence

from dsd_jax.cli import RunParser, run_command
from dsd_jax.config.run_config import RunConfig


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = RunParser(
        "train",
        "Learns prompts from a few shots, then evaluates; the same command resumes a stopped run.",
        "python -m dsd_jax.train --config=configs/emoji.py --workdir=runs/emoji",
        kind=RunConfig,
    ).parse_args(argv)
    from dsd_jax.experiment import setup  # heavy: after the arguments are known to be good
    from dsd_jax.experiment.clip_sweep import tune_all
    from dsd_jax.experiment.sweep import learn_all

    with setup.opened(flags.config, flags.workdir, "train") as workdir:
        if workdir.is_finished:
            return
        job = setup.start(flags.config, workdir)
        learned = learn_all(flags.config, workdir.folder, job)
        tuned = tune_all(flags.config, workdir.folder, job) if job.clip else {}
        setup.report(flags.config, workdir, job, learned, tuned)


if __name__ == "__main__":
    run_command(main)
