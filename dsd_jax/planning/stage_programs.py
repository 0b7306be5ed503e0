"""The jitted functions of a run's stages, with shapes for arguments."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dsd_jax.clip import fine_tuning_step
from dsd_jax.clip.clip_model import Normalizer
from dsd_jax.config.recipes import KINDS, Recipe
from dsd_jax.diffusion.device_memory import (
    TEXT_ROWS,
    Device,
    bytes_per_device,
    forward_rows,
    image_rows,
)
from dsd_jax.diffusion.pipeline import EncodedCaptions, text_states, vae_posterior
from dsd_jax.distributed.sharding import ROWS, WHOLE, spec_of
from dsd_jax.few_shot.batches import Batch, BatchItems
from dsd_jax.few_shot.prompt_training import init_prompts, outputs_of_losses
from dsd_jax.few_shot.train_step import (
    LossParams,
    TrainInputs,
    TrainStepConfig,
    parts_that_fit,
    update_function,
)
from dsd_jax.matching.call_plan import PairCounts, plan_calls
from dsd_jax.matching.forward import ForwardConfig, OutputSpec, UNetInputs, forward_terms
from dsd_jax.models import clip, text_encoder, vae
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.models.params import flatten, unflatten
from dsd_jax.models.unet import abstract_params
from dsd_jax.planning.planned_run import PlannedRun
from dsd_jax.prompts.prompt_params import by_layer
from dsd_jax.training.few_shot_fit import adamw

TOKENS = 77  # of a caption
AnyMesh: TypeAlias = Mesh | AbstractMesh  # the latter where nothing is compiled


class StageProgram(NamedTuple):
    """A jitted function with shapes for arguments.

    Attributes:
        function: jitted.
        arguments: arrays as ShapeDtypeStructs, static arguments as they are.
        params: the frozen params among the arguments.
        size: what a device computes in a call, in words, such as "16 rows".
        pairs: (image, caption, timestep)s that all devices together score in a call; of encoders
            images or captions.
        sent: bytes that a device takes part in sending in a call, whole arrays counted once.
    """

    function: Callable
    arguments: tuple
    params: Any
    size: str
    pairs: int
    sent: int


def unet_call(
    run: PlannedRun,
    mesh: AnyMesh,
    device: Device,
    *,
    outputs: OutputSpec,
    timesteps: int,
    prompts: Any = None,
) -> StageProgram:
    """Return the call in which many items are scored without gradients.

    Args:
        run: what is planned.
        mesh: of all devices.
        device: whose memory says how many rows a call has.
        outputs: of the UNet.
        timesteps: of each item, all noises together.
        prompts: a prompts pytree of ShapeDtypeStructs.
    """
    itemsize, resident = jnp.dtype(run.dtype).itemsize, resident_bytes(run, mesh)
    rows = forward_rows(device, run.unet, run.latent, itemsize=itemsize, params=resident)
    items = 4 * mesh.size * rows  # more than a call takes
    counts = PairCounts(items, run.images, run.captions, timesteps, outputs.uncond)
    plan = plan_calls(counts, rows, mesh.size)
    items, groups = len(plan.items[0]), len(plan.images[0])
    width, times = len(plan.captions[0]) + outputs.uncond, len(plan.timesteps[0])

    states = (items, width, TOKENS, run.unet.cross_attention_dim)
    pooled = (items, width, run.unet.pooled_dim)
    params = placed(run, mesh, abstract_params(run.unet))
    arguments = (
        forward_config(run, outputs),
        params,
        by_layer(replicated(mesh, prompts)) if prompts else {},
        UNetInputs(
            _struct(mesh, ROWS, (groups, 1, *run.latent)),
            _struct(mesh, ROWS, (groups, times, *run.latent)),
            _struct(mesh, WHOLE, (times,), jnp.int32),
            EncodedCaptions(_struct(mesh, ROWS, states), _struct(mesh, ROWS, pooled)),
        ),
    )
    size = f"{groups * times * width // mesh.size} rows"
    pairs = groups * times * len(plan.captions[0])
    return StageProgram(forward_terms, arguments, params, size, pairs, gathered(run, params))


def image_call(run: PlannedRun, mesh: AnyMesh) -> StageProgram:
    """Return the call in which the VAE encodes images."""
    count, side = image_rows(run.image_size), run.image_size
    pixels = _struct(mesh, ROWS, (count * mesh.size, side, side, 3), jnp.uint8)
    params = placed(run, mesh, vae.abstract_params(run.vae))
    overflows = run.vae.force_upcast and run.dtype == jnp.float16
    arguments = (run.vae, jnp.dtype(jnp.float32 if overflows else run.dtype), params, pixels)
    size, sent = counted(count, "image"), gathered(run, params)
    return StageProgram(vae_posterior, arguments, params, size, pixels.shape[0], sent)


def text_call(run: PlannedRun, mesh: AnyMesh) -> StageProgram:
    """Return the call in which the largest text encoder encodes captions."""
    config = max(run.texts, key=lambda config: config.hidden_size)
    ids = _struct(mesh, ROWS, (TEXT_ROWS * mesh.size, TOKENS), jnp.int32)
    params = placed(run, mesh, text_encoder.abstract_params(config))
    arguments = (config, len(run.texts) > 1, jnp.dtype(run.dtype), params, ids)
    size, sent = counted(TEXT_ROWS, "caption"), gathered(run, params)
    return StageProgram(text_states, arguments, params, size, ids.shape[0], sent)


def clip_step(run: PlannedRun, mesh: AnyMesh) -> StageProgram:
    """Return the step in which a CLIP is fine-tuned; the run has one."""
    assert run.clip and run.tune
    params = placed(run, mesh, clip.abstract_params(run.clip))
    params["logit_scale"] = _as(params["logit_scale"], jnp.float32)
    trained = {
        name: jax.tree.map(lambda x: _as(x, jnp.float32), params[name])
        for name in KINDS[run.tune.kind]
    }
    moments = jax.eval_shape(adamw(run.tune).init, trained)
    items, side = run.tune.batch, run.clip.vision.image_size
    divided = items % mesh.size == 0
    spec = ROWS if divided else WHOLE
    batch = fine_tuning_step.ItemBatch(
        _struct(mesh, spec, (items, run.images, side, side, 3), jnp.uint8),
        _struct(mesh, spec, (items, run.captions, TOKENS), jnp.int32),
    )
    inputs = fine_tuning_step.StepInputs(params, batch, _struct(mesh, WHOLE, ()))
    static = fine_tuning_step.Program(
        run.clip, jnp.dtype(run.dtype), Normalizer(), mesh, divided and mesh.size > 1
    )
    return StageProgram(
        function=fine_tuning_step.update_function(static, run.tune),  # pyright: ignore[reportArgumentType]: it is hashable
        arguments=(trained, _placed_alike(mesh, moments, trained), inputs),
        params=params,
        size=counted(items // mesh.size if divided else items, "item"),
        pairs=items * run.images * run.captions,
        sent=2 * gathered(run, params) + total_bytes(trained),
    )


def training_inputs(
    run: PlannedRun, recipe: Recipe, mesh: AnyMesh, *, items: int, remat: str | None = None
) -> tuple[TrainStepConfig, TrainInputs]:
    """Return a training step by `recipe` on `items`, with its `remat` or another one."""
    outputs = outputs_of_losses(run.unet, recipe)
    forward = forward_config(run, outputs, recipe.remat if remat is None else remat)
    times = recipe.timesteps
    states = (items, run.captions, TOKENS, run.unet.cross_attention_dim)
    pooled = (items, run.captions, run.unet.pooled_dim)
    batch_items = BatchItems(
        _struct(mesh, ROWS, (items, run.images, *run.latent)),
        EncodedCaptions(_struct(mesh, ROWS, states), _struct(mesh, ROWS, pooled)),
        _struct(mesh, ROWS, (items,), jnp.int32),
        _struct(mesh, ROWS, (items,)),
        {},
        _struct(mesh, ROWS, (items, run.images, times)),
    )
    numbers = _struct(mesh, WHOLE, (times,), jnp.int32)
    inputs = TrainInputs(
        replicated(mesh, abstract_prompts(run, recipe)),
        placed(run, mesh, abstract_params(run.unet)),
        LossParams({method: _struct(mesh, WHOLE, ()) for method in recipe.methods}),
        Batch(batch_items, numbers, numbers, _struct(mesh, WHOLE, (), jnp.int32)),
    )
    return TrainStepConfig(forward, recipe, mesh), inputs


def training_step(
    run: PlannedRun, recipe: Recipe, mesh: AnyMesh, device: Device | None, *, batch: int
) -> StageProgram:
    """Return the training step of a recipe, its batch cut into parts as on that device.

    Args:
        run: what is planned.
        recipe: by which prompts are trained; its batch is not read.
        mesh: of all devices.
        device: whose memory says how many parts; the recipe's where it is None.
        batch: items per device, rounded up to equal parts.
    """
    batch += -batch % recipe.accumulate
    config, inputs = training_inputs(run, recipe, mesh, items=batch * mesh.size)
    prompts, params, *others = inputs
    parts = recipe.accumulate
    if device is not None:
        parts = parts_that_fit(config, inputs, device, resident_bytes(run, mesh))
        config = config._replace(recipe=recipe.model_copy(update={"accumulate": parts}))
    opt_state = replicated(mesh, jax.eval_shape(adamw(recipe).init, prompts))
    arguments = (prompts, opt_state, params, *others)
    size = counted(batch, "item") + (f" in {parts} parts" if parts > 1 else "")
    pairs = batch * mesh.size * run.images * run.captions * recipe.timesteps
    passes = parts * (3 if recipe.loss == "hinge" else 2)  # and one to find the hardest candidates
    sent = passes * gathered(run, params) + total_bytes(prompts)
    return StageProgram(update_function(config), arguments, params, size, pairs, sent)


def abstract_prompts(run: PlannedRun, recipe: Recipe) -> Any:
    """Return the shapes of the prompts that a recipe trains."""
    return jax.eval_shape(lambda: init_prompts(run.unet, recipe, 0))


def forward_config(run: PlannedRun, outputs: OutputSpec, remat: str = "nothing") -> ForwardConfig:
    """Return the static arguments of a call of the UNet."""
    policy = BlockPolicy(remat, gather=run.fsdp > 1)
    dtype = jnp.dtype(run.dtype)
    return ForwardConfig(run.unet, run.schedule, dtype, outputs, policy, run.image_size)


def placed(run: PlannedRun, mesh: AnyMesh, params: Any) -> Any:
    """Return the shapes of params in the run's dtype, placed as they are when they are loaded."""
    leaves = {
        path: _struct(mesh, spec_of("/".join(path), leaf.shape, mesh), leaf.shape, run.dtype)
        for path, leaf in flatten(params).items()
    }
    return unflatten(leaves)


def resident_bytes(run: PlannedRun, mesh: AnyMesh) -> int:
    """Return the bytes per device of all params that are there throughout a run."""
    networks = [abstract_params(run.unet), vae.abstract_params(run.vae)]
    networks += [text_encoder.abstract_params(config) for config in run.texts]
    networks += [clip.abstract_params(run.clip)] if run.clip else []
    return bytes_per_device([placed(run, mesh, params) for params in networks])


def replicated(mesh: AnyMesh, tree: Any) -> Any:
    """Return the same shapes, whole on every device."""
    return jax.tree.map(lambda x: _struct(mesh, WHOLE, x.shape, x.dtype), tree)


def total_bytes(tree: Any) -> int:
    """Return the bytes of a tree of shapes, as if nothing of it were divided."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def gathered(run: PlannedRun, params: Any) -> int:
    """Return the bytes of params that a forward pass makes whole: those that are divided."""
    return total_bytes(params) if run.fsdp > 1 else 0


def counted(count: int, noun: str) -> str:
    """Return such as "1 image" and "8 items"."""
    return f"{count} {noun}{'s' if count > 1 else ''}"


def _struct(
    mesh: AnyMesh, spec: PartitionSpec, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> Any:
    """Return a ShapeDtypeStruct; functions take it where their annotations say an array."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))


def _as(x: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)


def _placed_alike(mesh: AnyMesh, moments: Any, trained: Any) -> Any:
    """Return an optimizer's state, each moment placed as its param, all else whole."""
    structure = jax.tree.structure(trained)

    def is_moments(tree: Any) -> bool:
        return jax.tree.structure(tree) == structure

    def place(tree: Any) -> Any:
        if is_moments(tree):
            return jax.tree.map(lambda x, like: _as(like, x.dtype), tree, trained)
        return replicated(mesh, tree)

    return jax.tree.map(place, moments, is_leaf=is_moments)
