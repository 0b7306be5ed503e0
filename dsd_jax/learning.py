"""Learning prompts from a few items: gradient steps, early stopping, a prior at zero-shot.

Of the few shots a part is held out: it decides when to stop, and whether what was learned is kept
at all. Both candidates of an item share timestep and noise; training sees the timesteps that are
scored later, under several noises. The empty caption's row is the frozen model's, computed once.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tqdm import tqdm

from dsd_jax import diffusion, losses, methods, prompts
from dsd_jax.items import PICTURES, Items
from dsd_jax.matching import Network, Terms, Wanted, forward_terms, with_uncond
from dsd_jax.model import Model
from dsd_jax.sharding import data_mesh, replicate, shard_rows
from dsd_jax.shots import Recipe, Shots, look_at, noise_slice, scores_of, split, spread
from dsd_jax.weighting import fit_weights


class Learned(NamedTuple):
    """Learned prompts, and the held-out loss at every check: {step: mean over held-out items}."""

    prompts: dict[str, Any]
    checks: dict[int, float]
    kept: int  # the step whose prompts were kept; 0 is the zero-shot model


def item_losses(
    terms: Terms, tree: Mapping[str, Any], recipe: Recipe, spreads: Mapping[str, float]
) -> jax.Array:
    """The loss of each item, averaged over the recipe's methods: (B,)."""
    total = 0.0
    for name in recipe.methods:
        scores = scores_of(terms, name, recipe, tree) / spreads[name]
        if recipe.loss == "hinge":
            total += losses.hinge(scores, recipe.margin)
        else:
            total += losses.cross_entropy(scores)
    return total / len(recipe.methods)


def denoising_loss(terms: Terms) -> jax.Array:
    """Squared error at the matching picture, as a part of the empty caption's; mean over all."""
    matching = jnp.square(terms.error[::PICTURES, 0] / terms.error_uncond[::PICTURES])
    return jnp.mean(matching)


def wanted_by(model: Model, recipe: Recipe, tree: Mapping[str, Any]) -> Wanted:
    """The terms that the recipe's losses read, the empty caption's aside."""
    every = [
        methods.needs(model.unet, name, recipe.layers, tree.get("weights", {}).get(name))
        for name in recipe.methods
    ]
    layers = tuple(dict.fromkeys(layer for wanted in every for layer in wanted.layers))
    error = bool(recipe.denoise) or any(wanted.error for wanted in every)
    return Wanted(layers, error, uncond=False)


class Batch(NamedTuple):
    """B items at T timesteps under one noise each; terms are the frozen model's."""

    latents: jax.Array  # (B * 2, 1, h, w, channels)
    noise: jax.Array  # (B * 2, T, h, w, channels)
    states: jax.Array  # (B, L, K)
    frozen: Terms  # (B * 2, 1, T, ...)


def draw(model: Model, shots: Shots, rows: np.ndarray, noise: int) -> Batch:
    """The items `rows` under noise number `noise`."""
    some, times = shots.take(rows), len(shots.timesteps)
    numbers = np.repeat(some.items.numbers, PICTURES)
    seeds = np.full(times, shots.seeds[noise])
    batch = Batch(
        some.items.latents.reshape(-1, 1, *model.latent_shape),
        diffusion.keyed_noise(seeds, numbers, shots.timesteps, model.latent_shape),
        some.items.states,
        noise_slice(some.terms, noise, times),
    )
    return shard_rows(data_mesh(), batch)


@partial(jax.jit, static_argnums=0)
def batch_terms(net: Network, params: Any, tree: Any, timesteps: jax.Array, batch: Batch) -> Terms:
    """The terms of a batch under prompts, with the frozen model's empty caption."""
    merged = prompts.merge(params, tree)
    pairs = jnp.repeat(jnp.arange(len(batch.states)), PICTURES)[:, None]
    lse, error = forward_terms(
        net,
        merged,
        tree.get("tokens", {}),
        batch.latents,
        batch.noise,
        timesteps,
        batch.states,
        pairs,
    )
    terms = Terms(
        {layer: x.swapaxes(1, 2) for layer, x in lse.items()},
        {},
        None if error is None else error.swapaxes(1, 2),
        None,
    )
    return with_uncond(terms, batch.frozen)


class State(NamedTuple):
    """What learning carries from step to step."""

    prompts: Any
    optimiser: Any


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW on a cosine; decay pulls LoRA towards the zero-shot model."""
    schedule = optax.cosine_decay_schedule(recipe.learning_rate, recipe.steps, alpha=0.1)
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, weight_decay=recipe.weight_decay)
    )


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def update(
    net: Network,
    recipe: Recipe,
    state: State,
    weights: Any,
    params: Any,
    timesteps: jax.Array,
    batch: Batch,
    spreads: Mapping[str, jax.Array],
) -> tuple[State, jax.Array]:
    """One step of the optimiser on one batch; only `state` changes."""

    def loss(tree: Any) -> jax.Array:
        terms = batch_terms(net, params, tree, timesteps, batch)
        total = jnp.mean(item_losses(terms, tree | weights, recipe, spreads))
        return total + recipe.denoise * denoising_loss(terms) if recipe.denoise else total

    value, grads = jax.value_and_grad(loss)(state.prompts)
    updates, opt_state = optimiser(recipe).update(grads, state.optimiser, state.prompts)
    return State(optax.apply_updates(state.prompts, updates), opt_state), value


def init(model: Model, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Prompts of the recipe's kinds that are learned by gradient, before the first step."""
    key = jax.random.key(seed)
    tree: dict[str, Any] = {}
    if "lora" in recipe.kinds:
        tree["lora"] = prompts.init_lora(model.unet, jax.random.fold_in(key, 0), recipe.rank)
    if "tokens" in recipe.kinds:
        tree["tokens"] = prompts.init_tokens(model.unet, jax.random.fold_in(key, 1), recipe.tokens)
    return tree


def learn(
    model: Model,
    items: Items,
    timesteps: np.ndarray,
    recipe: Recipe,
    seed: int,
    progress: str | None = None,
) -> Learned:
    """Learn prompts from `items`, the few shots.

    Args:
        model: frozen.
        items: k encoded items.
        timesteps: (T,) those that will be scored.
        recipe: how.
        seed: of the initialisation, the split and training's noise.
        progress: what to show before a progress bar; none without it.
    """
    shots = look_at(model, items, timesteps, seed, recipe.noises)
    part = split(len(items.states), recipe.held_out, seed)
    fixed: dict[str, Any] = {}
    if "weights" in recipe.kinds:
        fixed["weights"] = {
            name: fit_weights(shots, recipe, name, *part) for name in recipe.methods
        }
    tree = init(model, recipe, seed)
    if not tree:
        return Learned(fixed, {}, 0)
    return _descend(model, recipe, shots, part, tree, fixed, seed, progress)


def _descend(model, recipe, shots, part, tree, fixed, seed, progress) -> Learned:
    """Gradient steps on the first part of the shots, until the second part stops improving."""
    spreads = {name: spread(shots, name, recipe) for name in recipe.methods}
    net = Network.of(model, wanted_by(model, recipe, fixed))
    params, fixed = replicate(data_mesh(), (model.params["unet"], fixed))
    times = jnp.asarray(shots.timesteps)
    state = replicate(data_mesh(), State(tree, optimiser(recipe).init(tree)))
    held = list(_held_batches(model, shots, part[1], recipe.batch))

    def check(prompts_now: Mapping[str, Any]) -> np.ndarray:
        return np.concatenate(
            [
                np.asarray(
                    item_losses(
                        batch_terms(net, params, prompts_now, times, batch)
                        if prompts_now
                        else batch.frozen,
                        {**prompts_now, **fixed},
                        recipe,
                        spreads,
                    )
                )[:count]
                for batch, count in held
            ]
        )

    start = check({})
    checks, best = {0: float(start.mean())}, (float(start.mean()), 0, {})
    rng, since = np.random.default_rng([seed, 7]), 0
    bar = tqdm(total=recipe.steps, desc=progress, unit="step", disable=progress is None)
    for step in range(1, recipe.steps + 1):
        rows = _rows(rng, part[0], recipe.batch)
        batch = draw(model, shots, rows, int(rng.integers(len(shots.seeds))))
        state, value = update(net, recipe, state, fixed, params, times, batch, spreads)
        bar.update()
        if step % recipe.check_every and step != recipe.steps:
            continue
        checks[step] = float(check(state.prompts).mean())
        bar.set_postfix(loss=f"{float(value):.3f}", held_out=f"{checks[step]:.3f}")
        since += 1
        if checks[step] < best[0]:
            best, since = (checks[step], step, jax.tree.map(jnp.copy, state.prompts)), 0
        if since >= recipe.patience:
            break
    bar.close()
    return Learned({**best[2], **fixed}, checks, best[1])


def _rows(rng: np.random.Generator, rows: np.ndarray, count: int) -> np.ndarray:
    """`count` of the rows: without repeats while there are enough."""
    return rng.choice(rows, count, replace=len(rows) < count)


def _held_batches(
    model: Model, shots: Shots, rows: np.ndarray, size: int
) -> Iterator[tuple[Batch, int]]:
    """The held-out items in batches of one size, with how many of each count, under two noises."""
    for noise in range(min(2, len(shots.seeds))):
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            filled = np.concatenate([some, np.repeat(some[:1], size - len(some))])
            yield draw(model, shots, filled, noise), len(some)
