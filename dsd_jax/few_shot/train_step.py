"""A step of prompt training on the devices of all hosts: losses, their gradient, the update.

Every device computes the gradient for its own items, in as many parts as the recipe says; only the
sum over devices of the prompts' gradient and of the loss crosses them.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh, NamedSharding, PartitionSpec

from dsd_jax.diffusion import noising
from dsd_jax.diffusion.device_memory import Device, forward_bytes
from dsd_jax.distributed.sharding import WHOLE
from dsd_jax.few_shot.batches import BATCH_SPECS, Batch, BatchItems
from dsd_jax.few_shot.support_set import Recipe, item_scores
from dsd_jax.matching.forward import ForwardConfig, Terms, UNetInputs, forward_terms
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.prompts.prompt_params import by_layer
from dsd_jax.training import losses
from dsd_jax.training.few_shot_fit import adamw

# The fraction of the arrays that reverse mode keeps by tracing which a compiled program keeps: the
# compiler fuses the rest.
_KEPT = 0.65


class TrainStepConfig(NamedTuple):
    """The static (hashable) arguments of a step."""

    forward: ForwardConfig
    recipe: Recipe
    mesh: Mesh | AbstractMesh


class LossParams(NamedTuple):
    """The arrays of the loss that are not trained.

    Attributes:
        temperatures: {method: unit of its scores' margins}.
        score_weights: {method: learned weights of its score}; others have zero-shot weights.
    """

    temperatures: Mapping[str, Any]
    score_weights: Mapping[str, Any] = {}


class TrainInputs(NamedTuple):
    """The arrays of a step, or their shapes.

    Attributes:
        prompts: trained.
        unet_params: frozen.
        loss_params: frozen.
        batch: of all devices, or a device's part of it.
    """

    prompts: Any
    unet_params: Any
    loss_params: LossParams
    batch: Batch


def item_losses(outputs: Terms, items: int, recipe: Recipe, loss_params: LossParams) -> jax.Array:
    """Return the loss of each of B items, averaged over the recipe's methods: (B,)."""
    total = jnp.zeros(items)
    for name in recipe.methods:
        scores = item_scores(outputs, items, name, recipe, loss_params.score_weights)
        scores = scores / loss_params.temperatures[name]
        if recipe.loss == "hinge":
            total += losses.hinge(scores, recipe.margin)
        else:
            total += losses.cross_entropy(scores)
    return total / len(recipe.methods)


def denoising_losses(outputs: Terms, items: int) -> jax.Array:
    """Return the matching candidate's squared error relative to the empty caption's: (B,)."""
    error, uncond = outputs.error, outputs.error_uncond
    if error is None or uncond is None:
        raise ValueError("the outputs have no errors")
    images = len(error) // items
    return jnp.mean(jnp.square(error[::images, 0] / uncond[::images]), axis=1)


def at_timesteps(loss_params: LossParams, batch: Batch) -> LossParams:
    """Select and rescale the learned timestep weights of the batch's timesteps."""
    score_weights = {}
    for name, learned in loss_params.score_weights.items():
        weights = learned["timesteps"]
        selected = weights[batch.columns] * (len(weights) / len(batch.columns))
        score_weights[name] = {**learned, "timesteps": selected}
    return loss_params._replace(score_weights=score_weights)


def batch_outputs(forward: ForwardConfig, inputs: TrainInputs) -> Terms:
    """Return the UNet's outputs for a batch; the empty caption's are the frozen model's."""
    batch = inputs.batch
    items = batch.items
    count, images, *shape = items.latents.shape
    times = len(batch.timesteps)
    seeds = jnp.full(times, batch.seed)
    noise = noising.keyed_noise(seeds, items.indices, batch.timesteps, tuple(shape))
    latents = items.latents.reshape(-1, 1, *shape)
    noise = jnp.repeat(noise, images, axis=0)
    unet_inputs = UNetInputs(latents, noise, batch.timesteps, items.texts)
    adapters = by_layer(inputs.prompts)
    lse, error, norms = forward_terms(forward, inputs.unet_params, adapters, unet_inputs)
    uncond = items.error_uncond
    return Terms(
        {layer: x.swapaxes(1, 2) for layer, x in lse.items()},
        {layer: x.reshape(-1, *x.shape[2:]) for layer, x in items.lse_uncond.items()},
        None if error is None else error.swapaxes(1, 2),
        None if uncond is None else uncond.reshape(-1, times),
        {name: x.swapaxes(1, 2) for name, x in norms.items()},
    )


def hardest_candidates(config: TrainStepConfig, inputs: TrainInputs) -> Batch:
    """Return the batch with only those candidates that the hinge loss depends on.

    These are the matching one and, for each method, the best of the others: loss and gradient are
    the same without the rest. All candidates are scored here without gradient.
    """
    batch, recipe = inputs.batch, config.recipe
    items, count = batch.items, len(batch.items.loss_weight)
    images, captions = items.latents.shape[1], items.texts.states.shape[1]
    if recipe.loss != "hinge" or images * captions <= 1 + len(recipe.methods):
        return batch
    inputs = inputs._replace(prompts=jax.lax.stop_gradient(inputs.prompts))
    outputs = batch_outputs(config.forward, inputs)
    loss_params = at_timesteps(inputs.loss_params, batch)
    chosen = [jnp.zeros(count, int)]
    for name in recipe.methods:
        scores = item_scores(outputs, count, name, recipe, loss_params.score_weights)
        scores = scores / loss_params.temperatures[name]
        chosen.append(1 + jnp.argmax(scores[:, 1:], axis=1))
    candidates = jnp.stack(chosen, axis=1)

    def take(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row, indices: row[indices])(x, candidates)

    if captions > 1:
        return batch._replace(items=items._replace(texts=items.texts.map(take)))
    lse_uncond = {layer: take(x) for layer, x in items.lse_uncond.items()}
    error_uncond = None if items.error_uncond is None else take(items.error_uncond)
    return batch._replace(
        items=items._replace(
            latents=take(items.latents), lse_uncond=lse_uncond, error_uncond=error_uncond
        )
    )


def batch_loss(config: TrainStepConfig, inputs: TrainInputs) -> jax.Array:
    """Return the sum of the items' losses, each times its `loss_weight`."""
    outputs, items = batch_outputs(config.forward, inputs), inputs.batch.items
    count, loss_params = len(items.loss_weight), at_timesteps(inputs.loss_params, inputs.batch)
    per_item = item_losses(outputs, count, config.recipe, loss_params)
    if config.recipe.denoise:
        per_item += config.recipe.denoise * denoising_losses(outputs, count)
    return jnp.sum(per_item * items.loss_weight)


def gradient(config: TrainStepConfig, inputs: TrainInputs) -> tuple[jax.Array, Any]:
    """Return the loss of a batch and its gradient by the prompts."""
    inputs = inputs._replace(batch=hardest_candidates(config, inputs))
    return jax.value_and_grad(lambda prompts: batch_loss(config, inputs._replace(prompts=prompts)))(
        inputs.prompts
    )


def accumulated_gradient(config: TrainStepConfig, inputs: TrainInputs) -> tuple[jax.Array, Any]:
    """Return the same, computed in `recipe.accumulate` parts: memory for one of them."""
    parts, batch = config.recipe.accumulate, inputs.batch
    if parts == 1:
        return gradient(config, inputs)

    def add(total: Any, items: BatchItems) -> tuple[Any, None]:
        part = gradient(config, inputs._replace(batch=batch._replace(items=items)))
        return jax.tree.map(jnp.add, total, part), None

    # Neighbors go to different parts, so that each part has items on every device.
    count = len(batch.items.loss_weight) // parts
    divided = jax.tree.map(
        lambda x: x.reshape(count, parts, *x.shape[1:]).swapaxes(0, 1), batch.items
    )
    zeros = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), inputs.prompts))
    return jax.lax.scan(add, zeros, divided)[0]


def parts_that_fit(
    config: TrainStepConfig, inputs: TrainInputs, device: Device, resident_bytes: int
) -> int:
    """Return how many parts a batch is computed in: the recipe's `accumulate`, or more.

    Args:
        config: of the step.
        inputs: arrays or ShapeDtypeStructs, with the batch of all devices.
        device: that computes a part.
        resident_bytes: of all frozen params on a device.
    """
    parts = config.recipe.accumulate
    if device.memory is None:
        return parts
    items = len(inputs.batch.items.loss_weight) // config.mesh.size
    fit = max(1, int(device.free_bytes(resident_bytes) / item_bytes(config, inputs)))
    if items <= fit * parts:
        return parts
    return next(n for n in range(parts, items + 1) if items % n == 0 and items <= n * fit)


def item_bytes(config: TrainStepConfig, inputs: TrainInputs) -> int:
    """Estimate the bytes that an item of a batch needs for its gradient.

    They are what reverse mode keeps of the forward pass, by tracing, and a forward pass's working
    memory; `tests/planning/test_memory.py` compares them with compiled programs.
    """
    forward, items = config.forward, inputs.batch.items
    recomputes = forward.policy.gather and forward.policy.remat == "nothing"
    policy = BlockPolicy("blocks" if recomputes else forward.policy.remat)
    config = config._replace(forward=forward._replace(policy=policy))

    def kept(count: int) -> int:
        few = jax.tree.map(lambda x: jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype), items)
        part = inputs._replace(batch=inputs.batch._replace(items=few))
        hardest = jax.eval_shape(lambda part: hardest_candidates(config, part), part)

        def residuals(part: TrainInputs) -> Any:
            def loss(prompts: Any) -> jax.Array:
                return batch_loss(config, part._replace(prompts=prompts))

            return jax.vjp(loss, part.prompts)[1]

        saved = jax.eval_shape(residuals, part._replace(batch=hardest))
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(saved))

    captions, images = items.texts.states.shape[1], items.latents.shape[1]
    rows = images * captions * len(inputs.batch.timesteps)
    itemsize = jnp.dtype(forward.dtype).itemsize
    working = rows * forward_bytes(forward.unet, items.latents.shape[2:], itemsize)
    return int(working + _KEPT * (kept(2) - kept(1)))


@cache
def update_function(config: TrainStepConfig) -> Callable[..., tuple[Any, Any, jax.Array]]:
    """Return the jitted update of prompts; it donates `prompts` and `opt_state`.

    It is (prompts, opt_state, unet_params, loss_params, batch) -> (prompts, opt_state, loss). The
    UNet's params stay as they are placed, whole or divided over `fsdp`, the batch is sharded as
    `BATCH_SPECS` says, all others are whole on every device.
    """
    whole = NamedSharding(config.mesh, WHOLE)
    batch_shardings = jax.tree.map(lambda spec: NamedSharding(config.mesh, spec), BATCH_SPECS)
    batch_specs = jax.tree.map(_along_data, BATCH_SPECS)
    # Manual over `data`, so that nothing but this sum can cross it; XLA divides the rest over
    # `fsdp` as the params are placed.
    by_device = jax.shard_map(
        lambda inputs: jax.lax.psum(accumulated_gradient(config, inputs), "data"),
        mesh=config.mesh,
        axis_names={"data"},
        in_specs=(TrainInputs._make((WHOLE, WHOLE, WHOLE, batch_specs)),),
        out_specs=WHOLE,
        check_vma=False,
    )
    optimizer = adamw(config.recipe)

    def update(
        prompts: Any, opt_state: Any, unet_params: Any, loss_params: LossParams, batch: Batch
    ) -> tuple[Any, Any, jax.Array]:
        loss, grads = by_device(TrainInputs(prompts, unet_params, loss_params, batch))
        updates, opt_state = optimizer.update(grads, opt_state, prompts)
        return optax.apply_updates(prompts, updates), opt_state, loss

    return jax.jit(
        update,
        donate_argnums=(0, 1),
        in_shardings=(whole, whole, None, whole, batch_shardings),
        out_shardings=whole,
    )


def _along_data(spec: PartitionSpec) -> PartitionSpec:
    """Return the part of a PartitionSpec that concerns the axis `data`."""
    return PartitionSpec("data") if spec else WHOLE
