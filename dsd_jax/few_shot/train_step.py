"""One step of learning on the devices of a pod: losses, their gradient, the optimiser.

Every device computes the gradient for its own items, in as many parts as the recipe says; the sum
over devices of the prompts' gradient (and of the loss) is all that crosses them.
"""

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from dsd_jax.diffusion import noising
from dsd_jax.diffusion.device_memory import Device, forward_bytes
from dsd_jax.distributed.sharding import WHOLE
from dsd_jax.few_shot.batches import PLACES, Batch, Rows
from dsd_jax.few_shot.support_set import Recipe, scores_of
from dsd_jax.matching.forward import ForwardConfig, Terms, forward_terms
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.prompts.prompt_params import by_layer
from dsd_jax.training import losses

Spreads = Mapping[str, Any]  # {method: the unit of its margins}
# Of what tracing says that reverse mode keeps, a compiler keeps so much: it fuses the rest.
_KEPT = 0.65


class Step(NamedTuple):
    """What of a step is static."""

    net: ForwardConfig
    recipe: Recipe
    mesh: Mesh


class State(NamedTuple):
    """What learning carries from step to step."""

    prompts: Any
    optimiser: Any


def item_losses(
    terms: Terms, items: int, tree: Mapping[str, Any], recipe: Recipe, spreads: Spreads
) -> jax.Array:
    """The loss of each of B items, averaged over the recipe's methods: (B,)."""
    total = 0.0
    for name in recipe.methods:
        scores = scores_of(terms, items, name, recipe, tree) / spreads[name]
        if recipe.loss == "hinge":
            total += losses.hinge(scores, recipe.margin)
        else:
            total += losses.cross_entropy(scores)
    return total / len(recipe.methods)


def denoising_losses(terms: Terms, items: int) -> jax.Array:
    """Squared error at the matching candidate, as a part of the empty caption's: (B,)."""
    pictures = len(terms.error) // items
    matching = jnp.square(terms.error[::pictures, 0] / terms.error_uncond[::pictures])
    return jnp.mean(matching, axis=1)


def weights_at(tree: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """Prompts whose learned timestep weights are those of the batch's timesteps."""
    weights = {}
    for name, learned in tree.get("weights", {}).items():
        every = learned["timesteps"]
        part = every[batch.columns] * (len(every) / len(batch.columns))
        weights[name] = {**learned, "timesteps": part}
    return {**tree, "weights": weights}


def batch_terms(net: ForwardConfig, params: Any, tree: Mapping[str, Any], batch: Batch) -> Terms:
    """The terms of a batch under prompts, with the frozen model's empty caption."""
    rows = batch.rows
    items, pictures, *shape = rows.latents.shape
    times = len(batch.timesteps)
    seeds = jnp.full(times, batch.seed)
    noise = noising.keyed_noise(seeds, rows.numbers, batch.timesteps, tuple(shape))
    lse, error, norms = forward_terms(
        net,
        params,
        by_layer(tree),
        rows.latents.reshape(-1, 1, *shape),
        jnp.repeat(noise, pictures, axis=0),
        batch.timesteps,
        rows.texts,
    )
    return Terms(
        {layer: x.swapaxes(1, 2) for layer, x in lse.items()},
        {layer: x.reshape(-1, *x.shape[2:]) for layer, x in rows.lse_uncond.items()},
        None if error is None else error.swapaxes(1, 2),
        None if rows.error_uncond is None else rows.error_uncond.reshape(-1, times),
        {name: x.swapaxes(1, 2) for name, x in norms.items()},
    )


def hardest_candidates(
    step: Step, tree: Any, fixed: Any, params: Any, batch: Batch, spreads: Spreads
) -> Batch:
    """The batch with those candidates alone that the hinge loss depends on.

    These are the matching one and, for each method, the best of the others: its loss and gradient
    are the same without the rest, which are scored here without gradient.
    """
    rows, count = batch.rows, len(batch.rows.share)
    pictures, captions = rows.latents.shape[1], rows.texts.states.shape[1]
    if step.recipe.loss != "hinge" or pictures * captions <= 1 + len(step.recipe.methods):
        return batch
    tree = jax.lax.stop_gradient(tree)
    terms, weights = batch_terms(step.net, params, tree, batch), weights_at(fixed, batch)
    chosen = [jnp.zeros(count, int)]
    for name in step.recipe.methods:
        scores = scores_of(terms, count, name, step.recipe, weights) / spreads[name]
        chosen.append(1 + jnp.argmax(scores[:, 1:], axis=1))
    columns = jnp.stack(chosen, axis=1)

    def take(x: jax.Array) -> jax.Array:
        return jax.vmap(lambda row, which: row[which])(x, columns)

    if captions > 1:
        return batch._replace(rows=rows._replace(texts=rows.texts.map(take)))
    uncond = {layer: take(x) for layer, x in rows.lse_uncond.items()}
    error = None if rows.error_uncond is None else take(rows.error_uncond)
    some = rows._replace(latents=take(rows.latents), lse_uncond=uncond, error_uncond=error)
    return batch._replace(rows=some)


def batch_loss(
    step: Step, tree: Any, fixed: Any, params: Any, batch: Batch, spreads: Spreads
) -> jax.Array:
    """What is minimised: the items' losses, each with its share of the whole batch's mean."""
    terms, items = batch_terms(step.net, params, tree, batch), len(batch.rows.share)
    every = item_losses(terms, items, weights_at(fixed, batch), step.recipe, spreads)
    if step.recipe.denoise:
        every += step.recipe.denoise * denoising_losses(terms, items)
    return jnp.sum(every * batch.rows.share)


def gradient(
    step: Step, tree: Any, fixed: Any, params: Any, batch: Batch, spreads: Spreads
) -> tuple[jax.Array, Any]:
    """Loss and gradient of some items."""
    few = hardest_candidates(step, tree, fixed, params, batch, spreads)
    return jax.value_and_grad(lambda tree: batch_loss(step, tree, fixed, params, few, spreads))(
        tree
    )


def accumulated(
    step: Step, tree: Any, fixed: Any, params: Any, batch: Batch, spreads: Spreads
) -> tuple[jax.Array, Any]:
    """The same in `recipe.accumulate` parts, one after the other: memory for one of them."""
    parts = step.recipe.accumulate
    if parts == 1:
        return gradient(step, tree, fixed, params, batch, spreads)

    def add(total: Any, rows: Rows) -> tuple[Any, None]:
        found = gradient(step, tree, fixed, params, batch._replace(rows=rows), spreads)
        return jax.tree.map(jnp.add, total, found), None

    # Neighbours go to different parts, so that each part has items on every device.
    items = len(batch.rows.share) // parts
    apart = jax.tree.map(lambda x: x.reshape(items, parts, *x.shape[1:]).swapaxes(0, 1), batch.rows)
    nothing = jax.tree.map(jnp.zeros_like, (jnp.zeros(()), tree))
    return jax.lax.scan(add, nothing, apart)[0]


def parts_that_fit(step: Step, inputs: tuple, device: Device, weights: int) -> int:
    """Return how many parts a batch is computed in: the recipe's `accumulate`, or more.

    Args:
        step: as the recipe has it.
        inputs: of `gradient` beside it; arrays or ShapeDtypeStructs, the batch of all devices.
        device: that computes a part.
        weights: bytes of all frozen weights on a device.
    """
    parts = step.recipe.accumulate
    if device.memory is None:
        return parts
    items = len(inputs[3].rows.share) // step.mesh.size
    fit = max(1, int(device.room(weights) / item_bytes(step, inputs)))
    if items <= fit * parts:
        return parts
    return next(n for n in range(parts, items + 1) if items % n == 0 and items <= n * fit)


def item_bytes(step: Step, inputs: tuple) -> int:
    """Return about the bytes that an item of a batch needs for its gradient.

    These are what reverse mode keeps of the forward pass, which tracing tells, and what is worked
    on meanwhile; `tests/planning/test_memory.py` holds it against compiled programs.
    """
    tree, fixed, params, batch, spreads = inputs
    blocks = step.net.blocks
    alone = BlockPolicy("blocks" if blocks.gather and blocks.remat == "nothing" else blocks.remat)
    step = step._replace(net=step.net._replace(blocks=alone))

    def kept(items: int) -> int:
        some = batch._replace(rows=jax.tree.map(lambda x: _leading(x, items), batch.rows))
        few = jax.eval_shape(
            lambda *x: hardest_candidates(step, *x), tree, fixed, params, some, spreads
        )
        saved = jax.eval_shape(
            lambda tree, *x: jax.vjp(lambda tree: batch_loss(step, tree, *x), tree)[1],
            *(tree, fixed, params, few, spreads),
        )
        return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(saved))

    captions, pictures = batch.rows.texts.states.shape[1], batch.rows.latents.shape[1]
    rows = pictures * captions * len(batch.timesteps)
    itemsize = jnp.dtype(step.net.dtype).itemsize
    working = rows * forward_bytes(step.net.unet, batch.rows.latents.shape[2:], itemsize)
    return int(working + _KEPT * (kept(2) - kept(1)))


def _leading(x: Any, size: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((size, *x.shape[1:]), x.dtype)


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW on a cosine; decay pulls LoRA towards the zero-shot model."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps, alpha=0.1)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay)
    )


@cache
def update_function(step: Step) -> Callable[..., tuple[State, jax.Array]]:
    """The jitted (state, fixed prompts, params, batch, spreads) -> (state, loss) of a mesh.

    State and loss are whole everywhere, and the state is donated; batches are as `batches.PLACES`
    says; params stay as they lie, whole or divided over `fsdp`.
    """
    whole = NamedSharding(step.mesh, WHOLE)
    rows = jax.tree.map(lambda spec: NamedSharding(step.mesh, spec), PLACES)
    # Manual over `data`, so that nothing but this sum can cross it; XLA divides what is left over
    # `fsdp` as the weights lie.
    by_device = jax.shard_map(
        lambda *inputs: jax.lax.psum(accumulated(step, *inputs), "data"),
        mesh=step.mesh,
        axis_names={"data"},
        in_specs=(WHOLE, WHOLE, WHOLE, jax.tree.map(_along_data, PLACES), WHOLE),
        out_specs=WHOLE,
        check_vma=False,
    )

    def update(
        state: State, fixed: Any, params: Any, batch: Batch, spreads: Spreads
    ) -> tuple[State, jax.Array]:
        value, grads = by_device(state.prompts, fixed, params, batch, spreads)
        updates, opt_state = optimiser(step.recipe).update(grads, state.optimiser, state.prompts)
        return State(optax.apply_updates(state.prompts, updates), opt_state), value

    return jax.jit(
        update,
        donate_argnums=0,
        in_shardings=(whole, whole, None, rows, whole),
        out_shardings=whole,
    )


def _along_data(spec: Any) -> Any:
    """The part of a PartitionSpec that concerns the axis `data`."""
    return jax.sharding.PartitionSpec("data") if spec else WHOLE
