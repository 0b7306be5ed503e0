"""Learn prompts from a few shots as a config says, then evaluate them beside zero-shot."""

from collections.abc import Sequence

from dsd_jax.cli import RunParser, no_empty_workdir, run_command
from dsd_jax.config.run_config import RunConfig
from dsd_jax.io.progress import Stage


def make_parser() -> RunParser:
    """Return the parser of the command line."""
    return RunParser(
        "train",
        "Learns prompts from a few shots and evaluates them.\n"
        "The same command resumes a stopped run.",
        "dsd-jax train --config=emoji --workdir=runs/emoji",
        kind=RunConfig,
    )


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    with Stage("starting", shown=not flags.quiet):
        # Heavy: imported after the arguments are known to be good.
        from dsd_jax.experiment import clip_baseline, evaluation, run_plan, setup, sweep

    shown = not flags.quiet
    run = setup.open_run(flags.config, flags.workdir, "train", progress=shown)
    with no_empty_workdir(flags), run as workdir:
        if workdir.is_finished:
            evaluation.print_finished(workdir)
            return
        experiment = setup.load_experiment(flags.config, workdir, progress=shown)
        run_plan.show_plan(experiment)
        learned = sweep.prompt_sweep(experiment)
        tuned = clip_baseline.clip_sweep(experiment)
        evaluation.evaluate(experiment, learned, tuned, command=flags.command)


if __name__ == "__main__":
    run_command(main)
