"""Learning prompts from a few items: gradient steps, early stopping, a prior at zero-shot.

Of the few shots a part is held out: it decides when to stop, and whether what was learned is kept
at all, which takes a gain of more than its standard error. Both candidates of an item share
timestep and noise; training sees the timesteps that are scored later, under several noises. The
empty caption's row is the frozen model's, computed once.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax import diffusion, losses, methods, prompts
from dsd_jax.checkpoints import Checkpoints
from dsd_jax.fitting import fit
from dsd_jax.items import PICTURES
from dsd_jax.model import Model
from dsd_jax.sharding import data_mesh, fetch, replicate, shard_rows
from dsd_jax.shots import Recipe, Shots, scores_of, split, spread, take_timesteps
from dsd_jax.terms import Network, Terms, Wanted, forward_terms, with_uncond
from dsd_jax.weighting import fit_weights, is_gain


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
    """B items at some of the T timesteps under one noise; terms are the frozen model's."""

    latents: jax.Array  # (B * 2, 1, h, w, channels)
    noise: jax.Array  # (B * 2, T', h, w, channels)
    states: jax.Array  # (B, L, K)
    frozen: Terms  # (B * 2, 1, T', ...)
    columns: jax.Array  # (T',) which of the T timesteps
    timesteps: jax.Array  # (T',)


def draw(
    model: Model, shots: Shots, rows: np.ndarray, noise: int, columns: np.ndarray | None = None
) -> Batch:
    """The items `rows` under noise number `noise`, at all timesteps or those in `columns`."""
    some, mesh = shots.take(rows), data_mesh()
    columns = np.arange(len(shots.timesteps)) if columns is None else columns
    timesteps = shots.timesteps[columns]
    numbers = np.repeat(some.items.numbers, PICTURES)
    seeds = np.full(len(columns), shots.seeds[noise])
    by_row = (
        some.items.latents.reshape(-1, 1, *model.latent_shape),
        diffusion.keyed_noise(seeds, numbers, timesteps, model.latent_shape),
        some.items.states,
        take_timesteps(some.terms, noise * len(shots.timesteps) + columns),
    )
    return Batch(*shard_rows(mesh, by_row), *replicate(mesh, (columns, timesteps)))


def weights_at(tree: Mapping[str, Any], batch: Batch) -> dict[str, Any]:
    """Prompts whose learned timestep weights are those of the batch's timesteps."""
    weights = {}
    for name, learned in tree.get("weights", {}).items():
        every = learned["timesteps"]
        part = every[batch.columns] * (len(every) / len(batch.columns))
        weights[name] = {**learned, "timesteps": part}
    return {**tree, "weights": weights}


@partial(jax.jit, static_argnums=0)
def batch_terms(net: Network, params: Any, tree: Any, batch: Batch) -> Terms:
    """The terms of a batch under prompts, with the frozen model's empty caption."""
    merged = prompts.merge(params, tree)
    pairs = jnp.repeat(jnp.arange(len(batch.states)), PICTURES)[:, None]
    lse, error = forward_terms(
        net,
        merged,
        tree.get("tokens", {}),
        batch.latents,
        batch.noise,
        batch.timesteps,
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
    batch: Batch,
    spreads: Mapping[str, jax.Array],
) -> tuple[State, jax.Array]:
    """One step of the optimiser on one batch; only `state` changes."""

    def loss(tree: Any) -> jax.Array:
        terms = batch_terms(net, params, tree, batch)
        total = jnp.mean(item_losses(terms, weights_at(weights, batch), recipe, spreads))
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


class Course(NamedTuple):
    """How far learning has come; all that a resumed run needs.

    held_out: (checks + 1, held-out items) float32, their losses zero-shot and at every check, NaN
        ahead.
    """

    state: State
    best: Any
    best_check: int
    held_out: np.ndarray


def learn(
    model: Model,
    shots: Shots,
    recipe: Recipe,
    seed: int,
    *,
    checkpoints: Checkpoints | None = None,
    log: Path | None = None,
    progress: str | None = None,
) -> Learned:
    """Learn prompts from a few shots.

    Args:
        model: frozen.
        shots: what `look_at` made of k items; several recipes can share it.
        recipe: how.
        seed: of the initialisation, the split and training's noise.
        checkpoints: where to save progress, and resume from.
        log: JSON lines of the training loss.
        progress: what to show before a progress bar; none without it.
    """
    part = split(len(shots.items.states), recipe.held_out, seed)
    fixed: dict[str, Any] = {}
    if "weights" in recipe.kinds:
        weights = {name: fit_weights(shots, recipe, name, seed) for name in recipe.methods}
        fixed = {"weights": weights}
    tree = init(model, recipe, seed)
    if not tree:
        return Learned(fixed, {}, 0)
    course = _descend(model, recipe, shots, part, tree, fixed, seed, checkpoints, log, progress)
    checks = {
        min(number * recipe.check_every, recipe.steps): float(value)
        for number, value in enumerate(course.held_out.mean(axis=1))
        if not np.isnan(value)
    }
    best = int(course.best_check)
    kept = list(checks)[best] if is_gain(course.held_out[0] - course.held_out[best]) else 0
    return Learned({**(course.best if kept else {}), **fixed}, checks, kept)


def _descend(
    model: Model,
    recipe: Recipe,
    shots: Shots,
    part: tuple[np.ndarray, np.ndarray],
    tree: Any,
    fixed: Any,
    seed: int,
    checkpoints: Checkpoints | None,
    log: Path | None,
    progress: str | None,
) -> Course:
    """Gradient steps on the first part of the shots, until the second part stops improving."""
    mesh = data_mesh()
    net = Network.of(model, wanted_by(model, recipe, fixed))
    params, fixed, tree = replicate(mesh, (model.params["unet"], fixed, tree))
    spreads = {name: spread(shots, name, recipe) for name in recipe.methods}
    held = list(_held_batches(model, shots, part[1], recipe.batch))

    def held_out_losses(prompts_now: Any) -> np.ndarray:
        values = []
        for batch, count in held:
            terms = batch.frozen
            if prompts_now:
                terms = batch_terms(net, params, prompts_now, batch)
            found = item_losses(terms, weights_at(fixed, batch), recipe, spreads)
            values.append(fetch(found)[:count])
        return np.concatenate(values).reshape(-1, len(part[1])).mean(axis=0)  # over noises

    def step(course: Course, batch: Batch) -> tuple[Course, dict[str, jax.Array]]:
        state, loss = update(net, recipe, course.state, fixed, params, batch, spreads)
        return course._replace(state=state), {"loss": loss}

    def check(done: int, course: Course) -> tuple[Course, bool, float]:
        number = -(-done // recipe.check_every)
        course.held_out[number] = held_out_losses(course.state.prompts)
        mean = float(course.held_out[number].mean())
        if mean < course.held_out[int(course.best_check)].mean():
            best = jax.tree.map(jnp.copy, course.state.prompts)
            course = course._replace(best=best, best_check=np.asarray(number))
        return course, number - int(course.best_check) >= recipe.patience, mean

    checks = -(-recipe.steps // recipe.check_every)
    history = np.full((checks + 1, len(part[1])), np.nan, np.float32)
    history[0] = held_out_losses({})
    state = State(tree, replicate(mesh, optimiser(recipe).init(tree)))
    return fit(
        progress or "learning",
        Course(state, jax.tree.map(jnp.copy, tree), np.asarray(0), history),
        step,
        lambda number: _training_batch(model, shots, part[0], recipe, seed, number),
        recipe.steps,
        checkpoints,
        log,
        check=check,
        check_every=recipe.check_every,
        examples=recipe.batch,
        progress=progress is not None,
    )


def _training_batch(
    model: Model, shots: Shots, rows: np.ndarray, recipe: Recipe, seed: int, step: int
) -> Batch:
    """The batch of a step, by (seed, step) alone: items without repeats while there are enough."""
    rng = np.random.default_rng([seed, 7, step])
    some = rng.choice(rows, recipe.batch, replace=len(rows) < recipe.batch)
    times = len(shots.timesteps)
    columns = np.sort(rng.permutation(times)[: recipe.timesteps])
    return draw(model, shots, some, int(rng.integers(len(shots.seeds))), columns)


def _held_batches(
    model: Model, shots: Shots, rows: np.ndarray, size: int
) -> Iterator[tuple[Batch, int]]:
    """The held-out items in batches of one size, with how many of each count, under two noises."""
    for noise in range(min(2, len(shots.seeds))):
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            filled = np.concatenate([some, np.repeat(some[:1], size - len(some))])
            yield draw(model, shots, filled, noise), len(some)
