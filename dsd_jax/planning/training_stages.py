"""The stages of a run, compiled with shapes for arguments: what each takes on a slice."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from dsd_jax.config.recipes import Recipe
from dsd_jax.diffusion.device_memory import Device, bytes_per_device
from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.distributed.sharding import AXES, ROWS, WHOLE
from dsd_jax.errors import UserError
from dsd_jax.few_shot.batches import Batch, BatchItems
from dsd_jax.few_shot.prompt_training import init_prompts, outputs_of_losses
from dsd_jax.few_shot.support_set import outputs_read_by
from dsd_jax.few_shot.train_step import (
    LossParams,
    TrainInputs,
    TrainStepConfig,
    batch_loss,
    gradient,
    hardest_candidates,
    parts_that_fit,
    update_function,
)
from dsd_jax.matching.forward import OutputSpec
from dsd_jax.models.unet import abstract_params
from dsd_jax.planning.compilation import GIB, QUICK, compile_figures
from dsd_jax.planning.inference_stages import (
    POSITIONS,
    Program,
    all_weights,
    gathered,
    image_call,
    network,
    place,
    text_call,
    tuning_step,
    unet_call,
    whole,
    whole_bytes,
    words,
)
from dsd_jax.planning.least_flops import forward_flops, least_training_flops
from dsd_jax.planning.plan_job import Job
from dsd_jax.planning.slice_plan import Plan
from dsd_jax.planning.topology import Slice
from dsd_jax.training.few_shot_fit import adamw

# In the order of a run.
STAGES = ("encode", "shots", "train", "held-out", "score", "tune")


# From what is planned, a mesh of all devices and one device's memory to what is compiled.
Make = Callable[[Job, Mesh | AbstractMesh, Device], Program]


@dataclass(frozen=True)
class Stage:
    """A stage of a run, before it is compiled.

    Attributes:
        name: one of `STAGES`, and of which part or recipe where there are several.
        make: what is compiled.
        recipe: by which prompts are trained, None in other stages.
    """

    name: str
    make: Make
    recipe: Recipe | None = None


def stages_of(job: Job, batch: int | None = None, split: bool = True) -> list[Stage]:
    """Return the stages that a run of `job` has, in the order of a run.

    Args:
        job: what is planned.
        batch: items per device of a training step; by default the recipe's, divided.
        split: whether a batch that does not fit is computed in more parts than the recipe says.
    """
    stages = [
        Stage("encode pictures", lambda job, mesh, _: image_call(job, mesh)),
        Stage("encode captions", lambda job, mesh, _: text_call(job, mesh)),
    ]
    if job.recipes:
        wanted = outputs_read_by(job.unet, job.recipes.values())
        stages.append(_unet_stage("shots", wanted, job.timesteps * job.noises))
    for label, recipe in job.trained.items():
        name = f" {label}" if len(job.trained) > 1 else ""
        stages.append(_training_stage(f"train{name}", recipe, batch, split))
        wanted = outputs_of_losses(job.unet, recipe)
        times = job.timesteps * job.noises
        stages.append(_unet_stage(f"held-out{name}", wanted, times, recipe))
    stages.append(_unet_stage("score", job.scored, job.timesteps))
    if job.tune and job.recipes:
        stages.append(Stage("tune", lambda job, mesh, _: tuning_step(job, mesh)))
    return stages


def _unet_stage(name: str, wanted: OutputSpec, times: int, recipe: Recipe | None = None) -> Stage:
    """A stage without gradients, under prompts of `recipe` or without any."""

    def make(job: Job, mesh: Mesh | AbstractMesh, device: Device) -> Program:
        tree = jax.eval_shape(lambda: init_prompts(job.unet, recipe, 0)) if recipe else None
        return unet_call(job, mesh, device, wanted, times, prompts=tree)

    return Stage(name, make)


def _training_stage(name: str, recipe: Recipe, batch: int | None, split: bool) -> Stage:
    def make(job: Job, mesh: Mesh | AbstractMesh, device: Device) -> Program:
        size = batch or -(-recipe.batch // mesh.size)
        return training_step(job, recipe, mesh, device if split else None, size)

    return Stage(name, make, recipe)


def plan_stage(job: Job, where: Slice, stage: Stage) -> Plan:
    """Compile a stage for a slice."""
    mesh, device = mesh_on(where, job.fsdp), Device.of("tpu", int(where.chip.hbm * GIB))
    program = stage.make(job, mesh, device)
    with jax.set_mesh(mesh):
        found = compile_figures(program.function, *program.arguments, options=QUICK)
    resident = bytes_per_device(all_weights(job, mesh))
    flops, least = arithmetic(job, stage, program, device)
    return Plan(
        step=stage.name,
        slice=where,
        size=program.size,
        pairs=program.pairs,
        weights=resident,
        beside=resident - bytes_per_device(program.weights),
        flops=flops,
        least=least,
        sent=program.sent,
        found=found,
    )


def arithmetic(job: Job, stage: Stage, program: Program, device: Device) -> tuple[int, int]:
    """Floating-point operations of a program's products, and those it cannot do without."""
    if stage.recipe:
        items = len(program.arguments[4].items.loss_weight)
        least = items * least_of_item(job, stage.recipe)
        return flops_of_step(job, stage.recipe, program), least
    alone = stage.make(replace(job, fsdp=1), _one_device(), device)
    flops = _forward(alone) * program.pairs // alone.pairs
    return flops, flops


def training_step(
    job: Job, recipe: Recipe, mesh: Mesh | AbstractMesh, device: Device | None, batch: int
) -> Program:
    """Return the update of a run, in the parts that it has there.

    Args:
        job: what is planned.
        recipe: how prompts are learned; its batch is not read.
        mesh: of all devices.
        device: whose memory says how many parts; the recipe's where it is None.
        batch: items per device, rounded up to equal parts.
    """
    wanted = outputs_of_losses(job.unet, recipe)
    batch += -batch % recipe.accumulate
    step = TrainStepConfig(network(job, wanted, recipe.remat), recipe, mesh)
    tree = whole(mesh, jax.eval_shape(lambda: init_prompts(job.unet, recipe, 0)))
    unit = jax.ShapeDtypeStruct((), jnp.float32)
    loss_params = whole(mesh, LossParams(dict.fromkeys(recipe.methods, unit)))
    params = place(job, mesh, abstract_params(job.unet))
    rows = abstract_batch(job, recipe, mesh, batch * mesh.size)
    if device is not None:
        inputs = TrainInputs(tree, params, loss_params, rows)
        resident = bytes_per_device(all_weights(job, mesh))
        parts = parts_that_fit(step, inputs, device, resident)
        step = step._replace(recipe=recipe.model_copy(update={"accumulate": parts}))
    opt_state = whole(mesh, jax.eval_shape(adamw(recipe).init, tree))
    arguments = (tree, opt_state, params, loss_params, rows)
    parts = step.recipe.accumulate
    size = words(batch, "item") + (f" in {parts} parts" if parts > 1 else "")
    pairs = batch * mesh.size * job.pictures * job.captions * recipe.timesteps
    passes = parts * (3 if recipe.loss == "hinge" else 2)  # and one to find the hardest candidates
    sent = passes * gathered(job, params) + whole_bytes(tree)
    return Program(update_function(step), arguments, params, size, pairs, sent)


def mesh_on(where: Slice, fsdp: int) -> Mesh:
    """The slice's devices as a run's mesh has them; `UserError` where that cannot be."""
    here = len(where.devices) // where.hosts
    if fsdp < 1 or here % fsdp:
        raise UserError(f"fsdp is {fsdp}, which does not divide the {here} devices of a host.")
    devices = sorted(where.devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES)


def abstract_batch(job: Job, recipe: Recipe, mesh: Mesh | AbstractMesh, items: int) -> Batch:
    """A batch of `items` at the recipe's timesteps."""
    times, pictures = recipe.timesteps, job.pictures

    def rows(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((items, *shape), dtype, sharding=NamedSharding(mesh, ROWS))

    def alike(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, WHOLE))

    texts = EncodedCaptions(
        rows(job.captions, POSITIONS, job.unet.cross_attention_dim),
        rows(job.captions, job.unet.pooled_dim),
    )
    numbers = rows(dtype=jnp.int32)
    return Batch(
        BatchItems(rows(pictures, *job.latent), texts, numbers, rows(), {}, rows(pictures, times)),
        alike(times),
        alike(times),
        alike(),
    )


def least_of_item(job: Job, recipe: Recipe) -> int:
    """Floating-point operations that learning from one item cannot do without.

    Those candidates that the loss does not depend on are scored, too, but have no gradient.
    """
    job, mesh = replace(job, fsdp=1), _one_device()
    step = TrainStepConfig(network(job, outputs_of_losses(job.unet, recipe)), recipe, mesh)
    tree = jax.eval_shape(lambda: init_prompts(job.unet, recipe, 0))
    params = place(job, mesh, abstract_params(job.unet))
    batch = abstract_batch(job, recipe, mesh, 1)
    loss_params = LossParams(dict.fromkeys(recipe.methods, 1.0))

    def loss(tree: Any, params: Any, batch: Batch) -> jax.Array:
        inputs = TrainInputs(tree, params, loss_params, batch)
        return batch_loss(step, inputs._replace(batch=hardest_candidates(step, inputs)))

    return least_training_flops(loss, 0, tree, params, batch)


def flops_of_step(job: Job, recipe: Recipe, program: Program) -> int:
    """Floating-point operations of a training step's products, what is recomputed included."""
    items, mesh = program.arguments[4].items, _one_device()
    remat = "blocks" if job.fsdp > 1 and recipe.remat == "nothing" else recipe.remat
    job = replace(job, fsdp=1)
    wanted = outputs_of_losses(job.unet, recipe)
    recipe = recipe.model_copy(update={"accumulate": 1})
    step = TrainStepConfig(network(job, wanted, remat), recipe, mesh)
    tree = jax.eval_shape(lambda: init_prompts(job.unet, recipe, 0))
    params = place(job, mesh, abstract_params(job.unet))
    batch = abstract_batch(job, recipe, mesh, 1)
    loss_params = LossParams(dict.fromkeys(recipe.methods, 1.0))

    def run(tree: Any, params: Any, batch: Batch) -> Any:
        return gradient(step, TrainInputs(tree, params, loss_params, batch))

    return len(items.loss_weight) * forward_flops(run, tree, params, batch)


def _forward(program: Program) -> int:
    """Floating-point operations of a call without gradients."""
    static = [i for i, x in enumerate(program.arguments) if _is_static(x)]
    fixed = {i: program.arguments[i] for i in static}
    arrays = [x for i, x in enumerate(program.arguments) if i not in fixed]

    def call(*arrays: Any) -> Any:
        rest = iter(arrays)
        every = [fixed[i] if i in fixed else next(rest) for i in range(len(program.arguments))]
        return program.function(*every)

    return forward_flops(call, *arrays)


def _is_static(argument: Any) -> bool:
    leaves = jax.tree.leaves(argument)
    return not all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in leaves)


def _one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), AXES)
