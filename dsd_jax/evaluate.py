"""Scores a benchmark by every method of a config and writes the table, with standard errors."""

from collections.abc import Sequence

from etils import epath

from dsd_jax.command import RunParser, run_command


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = RunParser(
        "evaluate",
        "Scores a benchmark by every method of a config, and under prompts that train wrote; in a "
        "--workdir of train its report goes into the folder evaluate there.",
        "python -m dsd_jax.evaluate --config=configs/emoji.py --workdir=runs/zero-shot",
    )
    parser.add_argument(
        "--prompts",
        type=epath.Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder of learned prompts, such as runs/emoji/prompts/lora-256/seed-0; repeatable",
    )
    flags = parser.parse_args(argv)
    from dsd_jax import run  # heavy: after the arguments are known to be good
    from dsd_jax.candidates import Learned
    from dsd_jax.prompt_files import fingerprint, read_about, read_prompts

    abouts = {str(folder): read_about(folder) for folder in flags.prompts}
    inputs = {"--prompts": {path: fingerprint(path) for path in abouts}} if abouts else {}
    with run.opened(flags.config, flags.workdir, "evaluate", inputs) as workdir:
        if workdir.is_finished:
            return
        job = run.start(flags.config, workdir)
        learned = {
            path: Learned(
                about.methods or flags.config.methods,
                [read_prompts(path, job.model.unet)],
            )
            for path, about in abouts.items()
        }
        run.report(flags.config, workdir, job, learned, {})


if __name__ == "__main__":
    run_command(main)
