"""Score a benchmark by every method of a config and write the table, with standard errors."""

from collections.abc import Sequence

from etils import epath

from dsd_jax.cli import RunParser, no_empty_workdir, run_command
from dsd_jax.config.run_config import RunConfig
from dsd_jax.io.progress import Stage


def make_parser() -> RunParser:
    """Return the parser of the command line."""
    parser = RunParser(
        "evaluate",
        "Scores a benchmark by every method of a config, zero-shot and with the given prompts.\n"
        "In a --workdir of train, the report is written to the subfolder evaluate.",
        "dsd-jax evaluate --config=emoji --workdir=runs/zero-shot",
        kind=RunConfig,
    )
    parser.add_argument(
        "--prompts",
        type=epath.Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of prompts that train wrote, such as "
        "runs/emoji/prompts/adapted-256/seed-0; adds a row to the table, scored at the timesteps "
        "that the prompts were learned at; repeatable",
    )
    parser.add_argument(
        "--force",
        action="store_true",
        help="use prompts with weights or layers that they were not learned for",
    )
    return parser


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = make_parser().parse_args(argv)
    with Stage("starting", shown=not flags.quiet):
        # Heavy: imported after the arguments are known to be good.
        from dsd_jax.experiment import evaluation, run_plan, setup
        from dsd_jax.experiment.given_prompts import add_prompts, read_uses
        from dsd_jax.prompts.prompt_files import fingerprint

    uses = read_uses(flags.prompts, flags.config.methods)
    inputs = {"--prompts": {path: fingerprint(path) for path in uses}} if uses else {}
    shown = not flags.quiet
    run = setup.open_run(flags.config, flags.workdir, "evaluate", inputs, progress=shown)
    with no_empty_workdir(flags), run as workdir:
        if workdir.is_finished:
            evaluation.print_finished(workdir)
            return
        experiment = setup.load_experiment(flags.config, workdir, progress=shown)
        experiment, prompts = add_prompts(experiment, uses, force=flags.force)
        run_plan.show_plan(experiment, list(prompts))
        evaluation.evaluate(experiment, prompts, {}, command=flags.command)


if __name__ == "__main__":
    run_command(main)
