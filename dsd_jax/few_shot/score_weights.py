"""Learned weights of layers, heads, timesteps and errors: a logistic regression around zero-shot.

The frozen model's terms are computed once; what is learned are differences from the zero-shot
weights, in units in which each of them alone would move a margin by about its usual size.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.config import score_spec
from dsd_jax.diffusion.device_memory import FITTED, GIB, Device
from dsd_jax.distributed import processes
from dsd_jax.few_shot.support_set import Recipe, Shots, noise_slice, scores_of, spread
from dsd_jax.matching.forward import Terms
from dsd_jax.statistics.standard_errors import cluster_ids
from dsd_jax.training import losses
from dsd_jax.training.early_stopping import is_gain

_STEPS, _RATE = 300, 0.05
FOLDS = 5


def fit_weights(shots: Shots, recipe: Recipe, name: str, seed: int) -> dict[str, Any]:
    """The prompts kind `weights` for one method, with all shots whose terms a device has room for.

    The strength of the prior is the one of `recipe.ridges` that serves the items of each fold best
    that were not learned from. If even that does not serve them better than the zero-shot formula
    does, by more than a standard error, the formula stays: a few pairs shouldn't make it worse.
    """
    shots = fitted_to(shots, name, seed)
    scale, units = spread(shots, name, recipe), unit_weights(shots, recipe, name)
    terms = jax.tree.map(jnp.asarray, noise_terms(shots))
    count, clusters = shots.items.count, shots.items.clusters
    apart = in_folds(clusters, seed)  # (F, n)
    ridges = np.asarray(recipe.ridges, np.float32)

    def fold_losses(ridge: jax.Array, unseen: jax.Array) -> jax.Array:
        found = _regress(recipe, name, terms, units, scale, ridge, ~unseen)
        return _losses(recipe, name, scale, found, terms, count)

    every = jax.vmap(jax.vmap(fold_losses, (None, 0)), (0, None))(ridges, apart)  # (R, F, n)
    unseen = np.sum(np.where(apart, every, 0.0), axis=1)  # each item once per ridge
    zero = jax.tree.map(jnp.zeros_like, units)
    best = int(np.argmin(unseen.mean(axis=1)))
    frozen = np.asarray(_losses(recipe, name, scale, zero, terms, count))
    if not is_gain(frozen - unseen[best], clusters):
        return zero
    return _regress(recipe, name, terms, units, scale, ridges[best], np.ones(count, bool))


def fitted_to(shots: Shots, name: str, seed: int) -> Shots:
    """Return all shots, or as many drawn by `seed` as a device has room for, which is said.

    A few hundred weights are fitted; thousands of items with hundreds of timesteps are tens of
    gigabytes, which every step of the regression reads.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(shots.terms)) / shots.items.count
    memory = Device.local().memory
    room = FITTED if memory is None else memory // 4  # as much again is worked on
    count = max(2, int(room / max(1, size)))
    if count >= shots.items.count:
        return shots
    if processes.is_main():
        print(
            f"weights of {name}: fitted to {count} of {shots.items.count} shots, for all of them "
            f"would take {size * shots.items.count / GIB:.1f} GiB of a device's memory.",
            file=sys.stderr,
        )
    order = np.random.default_rng([seed, 11]).permutation(shots.items.count)
    return shots.take(np.sort(order[:count]))


def in_folds(clusters: Sequence[Any] | np.ndarray, seed: int) -> np.ndarray:
    """Return which items each fold leaves out: (F, n) bool.

    Every item is left out once, those of a cluster together.
    """
    number = cluster_ids(list(clusters))
    count = int(number.max()) + 1
    folds = min(FOLDS, count)
    fold_of = np.random.default_rng([seed, 9]).permutation(count) % folds
    return fold_of[number] == np.arange(folds)[:, None]


def unit_weights(shots: Shots, recipe: Recipe, name: str) -> dict[str, Any]:
    """Per weight, the step that moves a margin by about the zero-shot margin's spread."""
    method, size = score_spec.method_named(name), spread(shots, name, recipe)

    def unit(x: jax.Array) -> jax.Array:
        """From what the candidates of each item have, (n, candidates, N), to (N,)."""
        if x.shape[1] == 1:  # what all candidates share decides nothing: its weight stays as it is
            return jnp.zeros(x.shape[2:])
        margins = jnp.std(x[:, 0] - x[:, 1:].mean(axis=1), axis=0)
        return size / (margins + 1e-6)

    times, count = len(shots.timesteps), shots.items.count
    units: dict[str, Any] = {
        "lse": {
            layer: unit(jnp.mean(x[:, :, :times], 2).reshape(count, -1, x.shape[-1]))
            for layer, x in shots.terms.lse.items()
        },
        "timesteps": jnp.full(times, 1.0 / times),
    }
    if method.error:
        units["error"] = jnp.ones(())
    if method.uncond:
        units["lse_uncond"] = {
            layer: unit(jnp.mean(x[:, :times], 1).reshape(count, -1, x.shape[-1]))
            for layer, x in shots.terms.lse_uncond.items()
        }
    return units


def noise_terms(shots: Shots) -> list[Terms]:
    """The terms under each noise."""
    times = len(shots.timesteps)
    return [noise_slice(shots.terms, noise, times) for noise in range(len(shots.seeds))]


def _losses(
    recipe: Recipe,
    name: str,
    scale: Any,
    weights: Mapping[str, Any],
    terms: list[Terms],
    count: int,
) -> jax.Array:
    """Cross-entropy of each of `count` items, averaged over the noises: (n,)."""
    tree = {"weights": {name: weights}}
    every = [losses.cross_entropy(scores_of(x, count, name, recipe, tree) / scale) for x in terms]
    return jnp.mean(jnp.stack(every), axis=0)


@partial(jax.jit, static_argnums=(0, 1))
def _regress(
    recipe: Recipe,
    name: str,
    terms: list[Terms],
    units: Any,
    scale: Any,
    ridge: Any,
    rows: Any,
) -> Any:
    """Adam on the items where `rows` (n,) is true; returns weights, not units."""

    def weights_of(steps: Any) -> Any:
        return jax.tree.map(jnp.multiply, steps, units)

    def loss(steps: Any) -> jax.Array:
        prior = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(steps))
        every = _losses(recipe, name, scale, weights_of(steps), terms, len(rows))
        return (jnp.sum(jnp.where(rows, every, 0.0)) + ridge * prior) / jnp.sum(rows)

    transform = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    def body(carry: Any, _: None) -> tuple[Any, None]:
        steps, state = carry
        updates, state = transform.update(jax.grad(loss)(steps), state)
        return (optax.apply_updates(steps, updates), state), None

    steps = jax.tree.map(jnp.zeros_like, units)
    (steps, _), _ = jax.lax.scan(body, (steps, transform.init(steps)), length=_STEPS)
    return weights_of(steps)
