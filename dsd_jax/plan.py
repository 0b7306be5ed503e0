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
        "Says what a config's steps take on a TPU slice, by compiling them: memory, arithmetic,\n"
        "communication, and whether they fit. It needs no TPU, but a TPU's compiler:\n"
        "pip install libtpu.",
        "python -m dsd_jax.plan --config=configs/full_size.py --topology=v5e:2x4 --batch=8",
    )
    parser.add_argument(
        "--topology",
        action="append",
        default=[],
        metavar="FAMILY:SHAPE",
        help="a slice, such as v5e:16x16, v5p:4x4x4 or v6e:8x8; repeatable",
    )
    parser.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="lower the steps for so many NVIDIA GPUs, too, as far as that goes without one",
    )
    parser.add_argument("--step", choices=STEPS, help="only this step")
    parser.add_argument(
        "--batch", type=int, help="items per device; by default the recipe's batch, divided"
    )
    parser.add_argument("--fit", action="store_true", help="the largest batch that fits instead")
    parser.add_argument("--recipe", metavar="NAME", help="of config.learn; the first of recipes")
    parser.add_argument("--format", choices=FORMATS, default="table", help="of what is printed")
    flags = parser.parse_args(argv)
    import jax

    from dsd_jax.errors import UserError
    from dsd_jax.planning import table
    from dsd_jax.planning.topology import make_slice

    for option in ("batch", "gpus"):
        value = getattr(flags, option)
        if value is not None and value < 1:
            raise UserError(f"--{option}={value}; expected 1 or more.")
    jax.config.update("jax_enable_compilation_cache", False)  # it can't hold other machines' code
    if not flags.topology and not flags.gpus:
        raise UserError("nothing to plan for; name a slice by --topology=v5e:2x4, or --gpus=8.")
    slices = [make_slice(name) for name in flags.topology]  # finds mistakes before hours of work
    from dsd_jax.planning.job import read_job

    job, steps = read_job(flags.config, flags.recipe), (flags.step,) if flags.step else STEPS
    if flags.gpus:
        for step in steps:
            print(lower(flags, job, step))
    plans = [make_plan(flags, job, where, step) for where in slices for step in steps]
    if plans:
        print(getattr(table, f"format_{flags.format}")(plans), end="")


def lower(flags: Any, job: Any, step: str) -> str:
    """A line on how a step lowers for GPUs; `UserError` where it does not."""
    from jax.sharding import AbstractMesh, AxisType

    from dsd_jax.errors import UserError
    from dsd_jax.planning.gpu import lower_for_cuda
    from dsd_jax.planning.steps import scoring_step, training_step
    from dsd_jax.sharding import AXES

    if job.fsdp < 1 or flags.gpus % job.fsdp:
        raise UserError(f"fsdp is {job.fsdp}, which does not divide {flags.gpus} GPUs.")
    shape = flags.gpus // job.fsdp, job.fsdp
    mesh = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 2)
    make = {"train": training_step, "score": scoring_step}[step]
    function, arguments = make(job, mesh, flags.batch or -(-job.recipe.batch // flags.gpus))
    found = lower_for_cuda(function, *arguments)
    calls = ", ".join(found.custom_calls) or "no kernel by name"
    return (
        f"{step} for {found.devices} NVIDIA GPUs: lowered and read back, "
        f"{found.size / 1e6:.1f} MB of program, {len(found.inputs)} inputs, "
        f"{len(found.outputs)} outputs, calls {calls}"
    )


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
