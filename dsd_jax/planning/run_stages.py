"""The stages of a run: which there are, and what each takes on a slice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from dsd_jax.config.recipes import Recipe
from dsd_jax.diffusion.device_memory import Device, bytes_per_device
from dsd_jax.distributed.sharding import AXES
from dsd_jax.errors import UserError
from dsd_jax.few_shot.prompt_training import outputs_of_losses
from dsd_jax.few_shot.support_set import outputs_read_by
from dsd_jax.few_shot.train_step import (
    TrainInputs,
    batch_loss,
    gradient,
    hardest_candidates,
)
from dsd_jax.matching.forward import OutputSpec
from dsd_jax.planning.compilation import GIB, QUICK, compile_stats
from dsd_jax.planning.flop_count import forward_flops, least_training_flops
from dsd_jax.planning.planned_run import PlannedRun
from dsd_jax.planning.stage_plan import StagePlan
from dsd_jax.planning.stage_programs import (
    AnyMesh,
    StageProgram,
    abstract_prompts,
    clip_step,
    image_call,
    resident_bytes,
    text_call,
    training_inputs,
    training_step,
    unet_call,
)
from dsd_jax.planning.topology import Slice

_LEAP = 4  # times the largest that fitted is as far as two small batches can foretell


@dataclass(frozen=True)
class Stage:
    """A stage of a run, before it is compiled.

    Attributes:
        name: such as "encode images", "train" or, where several recipes train, "train lora".
        make: returns what is compiled, for a run, a mesh of all devices and one device's memory.
        recipe: by which prompts are trained, None in other stages.
    """

    name: str
    make: Callable[[PlannedRun, AnyMesh, Device], StageProgram]
    recipe: Recipe | None = None


def stages_of(run: PlannedRun, batch: int | None = None, split: bool = True) -> list[Stage]:
    """Return the stages that a run has, in their order.

    Args:
        run: what is planned.
        batch: items per device of a training step; by default the recipe's, divided.
        split: whether a batch that does not fit is computed in more parts than the recipe says.
    """
    stages = [
        Stage("encode images", lambda run, mesh, _: image_call(run, mesh)),
        Stage("encode captions", lambda run, mesh, _: text_call(run, mesh)),
    ]
    noise_levels = run.timesteps * run.noises
    if run.recipes:
        outputs = outputs_read_by(run.unet, run.recipes.values())
        stages.append(_scoring_stage("shots", outputs, noise_levels))
    for label, recipe in run.trained.items():
        suffix = f" {label}" if len(run.trained) > 1 else ""
        stages.append(_training_stage(f"train{suffix}", recipe, batch, split))
        outputs = outputs_of_losses(run.unet, recipe)
        stages.append(_scoring_stage(f"held-out{suffix}", outputs, noise_levels, recipe))
    stages.append(_scoring_stage("score", run.scored, run.timesteps))
    if run.tune and run.recipes:
        stages.append(Stage("tune", lambda run, mesh, _: clip_step(run, mesh)))
    return stages


def _scoring_stage(
    name: str, outputs: OutputSpec, timesteps: int, recipe: Recipe | None = None
) -> Stage:
    """Return a stage without gradients, under prompts of `recipe` or without any."""

    def make(run: PlannedRun, mesh: AnyMesh, device: Device) -> StageProgram:
        prompts = abstract_prompts(run, recipe) if recipe else None
        return unet_call(run, mesh, device, outputs=outputs, timesteps=timesteps, prompts=prompts)

    return Stage(name, make)


def _training_stage(name: str, recipe: Recipe, batch: int | None, split: bool) -> Stage:
    def make(run: PlannedRun, mesh: AnyMesh, device: Device) -> StageProgram:
        size = batch or -(-recipe.batch // mesh.size)
        return training_step(run, recipe, mesh, device if split else None, batch=size)

    return Stage(name, make, recipe)


def plan_stage(run: PlannedRun, where: Slice, stage: Stage) -> StagePlan:
    """Compile a stage for a slice."""
    mesh, device = mesh_on(where, run.fsdp), Device.of("tpu", int(where.chip.hbm * GIB))
    program = stage.make(run, mesh, device)
    with jax.set_mesh(mesh):
        compiled = compile_stats(program.function, *program.arguments, options=QUICK)
    resident = resident_bytes(run, mesh)
    flops, least = arithmetic(run, stage, program, device)
    return StagePlan(
        stage=stage.name,
        slice=where,
        size=program.size,
        pairs=program.pairs,
        weights=resident,
        beside=resident - bytes_per_device(program.params),
        flops=flops,
        least=least,
        sent=program.sent,
        compiled=compiled,
    )


def mesh_on(where: Slice, fsdp: int) -> Mesh:
    """Return the slice's devices as a run's mesh has them.

    Raises:
        UserError: `fsdp` does not divide the devices of a host.
    """
    host_devices = len(where.devices) // where.hosts
    if fsdp < 1 or host_devices % fsdp:
        raise UserError(
            f"fsdp is {fsdp}, which does not divide the {host_devices} devices of a host."
        )
    devices = sorted(where.devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES)


def arithmetic(
    run: PlannedRun, stage: Stage, program: StageProgram, device: Device
) -> tuple[int, int]:
    """Return the cost of a program's products, and of those that it cannot do without.

    Both are floating-point operations on all devices together, and for training those of an item
    times the number of items.
    """
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), AXES)
    whole = replace(run, fsdp=1)
    if stage.recipe is None:
        small = stage.make(whole, mesh, device)
        flops = _call_flops(small) * program.pairs // small.pairs
        return flops, flops
    recipe = stage.recipe
    items = program.pairs // (run.images * run.captions * recipe.timesteps)
    remat = "blocks" if run.fsdp > 1 and recipe.remat == "nothing" else recipe.remat
    config, inputs = training_inputs(whole, recipe, mesh, items=1, remat=remat)
    flops = forward_flops(partial(gradient, config), inputs)
    config, inputs = training_inputs(whole, recipe, mesh, items=1, remat="nothing")

    def loss(*arrays: Any) -> jax.Array:
        """Return the loss; candidates that it does not depend on are scored without gradient."""
        inputs = TrainInputs(*arrays)
        return batch_loss(config, inputs._replace(batch=hardest_candidates(config, inputs)))

    return items * flops, items * least_training_flops(loss, 0, *inputs)


def _call_flops(program: StageProgram) -> int:
    """Return the cost of the products of a call without gradients."""
    arrays = {i: x for i, x in enumerate(program.arguments) if _is_arrays(x)}

    def call(arrays: dict[int, Any]) -> Any:
        return program.function(*[arrays.get(i, x) for i, x in enumerate(program.arguments)])

    return forward_flops(call, arrays)


def _is_arrays(argument: Any) -> bool:
    leaves = jax.tree.leaves(argument)
    return all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def plan_largest_batch(
    run: PlannedRun,
    where: Slice,
    stage: Stage,
    *,
    start: int | None = None,
    report: Callable[[int], object] = lambda batch: None,
) -> StagePlan:
    """Compile a training stage with the largest batch that fits a slice, or the smallest.

    Args:
        run: what is planned.
        where: the slice.
        stage: has a recipe.
        start: the first batch to try, in items per device; by default the recipe's, divided.
        report: is called with each batch before it is compiled.
    """
    plans: dict[int, StagePlan] = {}

    def peak_of(batch: int) -> float | None:
        report(batch)
        stages = {stage.name: stage for stage in stages_of(run, batch, split=False)}
        plan = plans[batch] = plan_stage(run, where, stages[stage.name])
        return plan.needed if plan.fits else None

    if start is None:
        start = -(-stage.recipe.batch // len(where.devices)) if stage.recipe else 1
    return plans[largest_batch(peak_of, where.chip.hbm * GIB, start) or min(plans)]


def largest_batch(
    peak_of: Callable[[int], float | None], available: float, start: int = 1, limit: int = 1024
) -> int:
    """Return the largest batch of 1 to `limit` that fits, supposing that all smaller ones do too.

    A compilation takes minutes. The peak grows by nearly the same from item to item, so two batches
    that fit predict where it ends, and the next try is there; doubling and halving are for wrong
    predictions.

    Args:
        peak_of: returns the peak of a batch per device, in bytes, or None where it does not fit.
        available: bytes of memory per device.
        start: the first batch to try.
        limit: the largest.

    Returns:
        A batch per device; 0 where not even 1 fits.
    """
    peaks: dict[int, float] = {}
    fits, too_large, batch = 0, limit + 1, min(start, limit)
    while too_large - fits > 1:
        peak = peak_of(batch)
        if peak is None:
            too_large = batch
        else:
            peaks[batch], fits = peak, batch
        foretold = _foretold(peaks, available) if len(peaks) > 1 else 2 * fits
        if fits < foretold < too_large:
            batch = foretold
        else:
            batch = fits + 1 if 0 < foretold <= fits else (fits + too_large) // 2
    return fits


def _foretold(peaks: dict[int, float], available: float) -> int:
    """Return the batch at which the line through the two largest peaks reaches the memory."""
    small, large = sorted(peaks)[-2:]
    slope = (peaks[large] - peaks[small]) / (large - small)
    room = available - peaks[large]
    return _LEAP * large if slope * _LEAP * large <= room else large + int(room / slope)
