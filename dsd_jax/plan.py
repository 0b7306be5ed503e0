"""Compiles every stage of a config's run for TPU slices, without access to one."""

import sys
import time
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dsd_jax.cli import ConfigParser, run_command
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError

if TYPE_CHECKING:
    from dsd_jax.planning.planned_run import PlannedRun
    from dsd_jax.planning.run_stages import Stage
    from dsd_jax.planning.stage_plan import StagePlan
    from dsd_jax.planning.topology import Slice

STAGES = ("encode", "shots", "train", "held-out", "score", "tune")
FORMATS = ("table", "markdown", "json")


def make_parser() -> ConfigParser:
    """Return the parser of the command line."""
    parser = ConfigParser(
        "plan",
        "Compiles the stages of a config's run for TPU slices and reports the memory, arithmetic\n"
        "and communication of each, and whether it fits. Needs a compiler for TPUs, but no TPU;\n"
        "if there is none, a message says how to install it. A stage compiles in minutes.",
        "dsd-jax plan --config=full_size --topology=v5e:2x4",
        kind=RunConfig,
    )
    parser.add_argument(
        "--topology",
        action="append",
        default=[],
        metavar="FAMILY:SHAPE",
        help="a TPU slice, such as v5e:16x16, v5p:4x4x4 or v6e:8x8; repeatable",
    )
    parser.add_argument(
        "--gpus",
        type=int,
        metavar="N",
        help="also lower the stages for N NVIDIA GPUs; compiling them would take a GPU",
    )
    parser.add_argument(
        "--step",
        choices=("all", *STAGES),
        default="all",
        help="plan only this stage; default: all stages of the run",
    )
    parser.add_argument(
        "--batch",
        type=int,
        metavar="N",
        help="items per device in a training step; default: the recipe's batch over the devices",
    )
    parser.add_argument(
        "--fit",
        action="store_true",
        help="find the largest batch per device that fits, with the recipe's accumulate",
    )
    parser.add_argument("--recipe", metavar="NAME", help="plan only this recipe of config.learn")
    parser.add_argument("--format", choices=FORMATS, default="table", help="format of the output")
    return parser


def parse(argv: Sequence[str]) -> Namespace:
    """Parse the command line and check what needs no planning."""
    flags = make_parser().parse_args(argv)
    for option in ("batch", "gpus"):
        value = getattr(flags, option)
        if value is not None and value < 1:
            raise UserError(f"--{option}={value}; expected 1 or more.")
    if not flags.topology and not flags.gpus:
        raise UserError("nothing to plan for; name a slice by --topology=v5e:2x4, or --gpus=8.")
    return flags


def main(argv: Sequence[str]) -> None:
    """Run the command."""
    flags = parse(argv)
    from dsd_jax.planning.topology import find_compiler, make_slice

    if flags.topology:  # JAX complains about a compiler for TPUs where there is no TPU
        find_compiler()
    import jax

    from dsd_jax.distributed.devices import check_devices
    from dsd_jax.planning import stage_plan

    jax.config.update("jax_enable_compilation_cache", False)  # it can't hold other machines' code
    slices = [make_slice(name) for name in flags.topology]  # finds mistakes before hours of work
    check_devices()
    from dsd_jax.planning.planned_run import read_planned_run

    run = read_planned_run(flags.config, flags.recipe)
    stages = asked_stages(flags, run)
    for stage in stages if flags.gpus else ():
        print(lower(flags, run, stage))
    plans = [make_plan(flags, run, where, stage) for where in slices for stage in stages]
    if plans:
        print(getattr(stage_plan, f"format_{flags.format}")(plans), end="")
        print(stage_plan.largest(plans), file=sys.stderr)


def asked_stages(flags: Namespace, run: "PlannedRun") -> list["Stage"]:
    """Return the stages of the run that `--step` names."""
    from dsd_jax.planning.run_stages import stages_of

    stages = stages_of(run, flags.batch, split=not flags.fit)
    chosen = [stage for stage in stages if flags.step in ("all", stage.name.partition(" ")[0])]
    if not chosen:
        names = ", ".join(stage.name for stage in stages)
        raise UserError(
            f"--step={flags.step}: a run of this config has no such stage, but {names}."
        )
    return chosen


def lower(flags: Namespace, run: "PlannedRun", stage: "Stage") -> str:
    """Return a line on how a stage lowers for GPUs; raise `UserError` where it does not."""
    from jax.sharding import AbstractMesh, AxisType

    from dsd_jax.diffusion.device_memory import Device
    from dsd_jax.distributed.sharding import AXES
    from dsd_jax.planning.compilation import lower_for_cuda

    if run.fsdp < 1 or flags.gpus % run.fsdp:
        raise UserError(f"fsdp is {run.fsdp}, which does not divide {flags.gpus} GPUs.")
    shape = flags.gpus // run.fsdp, run.fsdp
    mesh = AbstractMesh(shape, AXES, axis_types=(AxisType.Auto,) * 2)
    program = stage.make(run, mesh, Device.of("gpu", None))
    lowered = lower_for_cuda(program.function, *program.arguments)
    calls = ", ".join(lowered.custom_calls) or "no kernel by name"
    gpus = f"{lowered.devices} NVIDIA GPU{'s' if lowered.devices > 1 else ''}"
    return (
        f"{stage.name} for {gpus}: lowered and read back, "
        f"{lowered.size / 1e6:.1f} MB of program, {len(lowered.inputs)} inputs, "
        f"{len(lowered.outputs)} outputs, calls {calls}"
    )


def make_plan(flags: Namespace, run: "PlannedRun", where: "Slice", stage: "Stage") -> "StagePlan":
    """Plan one stage on one slice, with the batch that is asked for or the largest that fits."""
    from dsd_jax.planning.run_stages import plan_largest_batch, plan_stage

    started, name = time.monotonic(), f"{stage.name} on {where.name}"
    print(f"{name}: compiling", file=sys.stderr)

    def report(batch: int) -> None:
        print(f"{name}: {batch} items per device", file=sys.stderr)

    if flags.fit and stage.recipe:
        plan = plan_largest_batch(run, where, stage, start=flags.batch, report=report)
    else:
        plan = plan_stage(run, where, stage)
    seconds = time.monotonic() - started
    print(f"{name}: {plan.memory} ({seconds:.0f} s)", file=sys.stderr)
    return plan


if __name__ == "__main__":
    run_command(main)
