"""Compiles the real training and scoring steps for TPU slices that are not there."""

from collections.abc import Sequence
from typing import Any

from dsd_jax.command import ConfigParser, run_command

STEPS = ("train", "score")
FORMATS = ("table", "markdown", "json")


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    parser = ConfigParser(
        "plan",
        "Says what a config's steps take on a TPU slice, by compiling them: memory, arithmetic, "
        "communication, and whether they fit. It needs no TPU, but a TPU's compiler: "
        "pip install libtpu.",
        "python -m dsd_jax.plan --config=configs/full_size.py --topology=v5e:2x4 --batch=8",
    )
    parser.add_argument(
        "--topology",
        action="append",
        required=True,
        metavar="FAMILY:SHAPE",
        help="a slice, such as v5e:16x16, v5p:4x4x4 or v6e:8x8; repeatable",
    )
    parser.add_argument("--step", choices=STEPS, help="only this step")
    parser.add_argument(
        "--batch", type=int, help="items per device; by default the recipe's batch, divided"
    )
    parser.add_argument("--fit", action="store_true", help="the largest batch that fits instead")
    parser.add_argument("--recipe", metavar="NAME", help="of config.learn; the first of recipes")
    parser.add_argument("--format", choices=FORMATS, default="table", help="of what is printed")
    flags = parser.parse_args(argv)
    from dsd_jax.planning import table

    plans = make_plans(flags)
    print(getattr(table, f"format_{flags.format}")(plans), end="")


def make_plans(flags: Any) -> list[Any]:
    """A plan for every topology and step, with a line on stderr for each on its way."""
    from dsd_jax.errors import UserError
    from dsd_jax.planning.job import read_job
    from dsd_jax.planning.topology import make_slice

    if flags.batch is not None and flags.batch < 1:
        raise UserError(f"--batch={flags.batch}; expected 1 or more.")
    slices = [make_slice(name) for name in flags.topology]  # finds mistakes before hours of work
    job = read_job(flags.config, flags.recipe)
    steps = (flags.step,) if flags.step else STEPS
    return [make_plan(flags, job, where, step) for where in slices for step in steps]


def make_plan(flags: Any, job: Any, where: Any, step: str) -> Any:
    """One step on one slice, with the batch that is asked for or the largest that fits."""
    import sys
    import time

    from dsd_jax.planning.figures import GIB
    from dsd_jax.planning.fit import largest_fit
    from dsd_jax.planning.steps import plan_scoring, plan_training

    started, plan = time.monotonic(), {"train": plan_training, "score": plan_scoring}[step]
    batch = flags.batch or -(-job.recipe.batch // len(where.devices))
    tried = {}

    def compile_batch(size: int) -> Any:
        print(f"compiling {step} for {where.name}, {size} items per device", file=sys.stderr)
        tried[size] = plan(job, where, size)
        return tried[size].found

    if flags.fit:
        available = where.chip.hbm * GIB
        batch = largest_fit(compile_batch, available, batch).batch or min(tried)
    else:
        compile_batch(batch)
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    return tried[batch]


if __name__ == "__main__":
    run_command(main)
