"""Learned score weights of layers, heads, timesteps and errors: a regularized logistic regression.

The frozen model's outputs are computed once. The variables are differences from the zero-shot
weights, in units in which each alone moves a margin by about the zero-shot temperature.
"""

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.config import score_spec
from dsd_jax.diffusion.device_memory import FITTED, GIB, Device
from dsd_jax.distributed import processes
from dsd_jax.few_shot.support_set import (
    Recipe,
    SupportSet,
    item_scores,
    zero_shot_temperature,
)
from dsd_jax.matching.forward import Terms
from dsd_jax.statistics.standard_errors import cluster_ids
from dsd_jax.training import losses
from dsd_jax.training.early_stopping import judge
from dsd_jax.training.held_out_verdict import HeldOutVerdict

_STEPS, _RATE = 300, 0.05
FOLDS = 5


class FittedWeights(NamedTuple):
    """The fitted weights of a method, zeros where zero-shot stays, and why they are what they are.

    Attributes:
        weights: differences from the zero-shot weights, as in `prompt_params`.
        verdict: of the items that each fold leaves out.
    """

    weights: dict[str, Any]
    verdict: HeldOutVerdict


class Regression(NamedTuple):
    """The data of a regression.

    Attributes:
        outputs: of the frozen model under each noise.
        units: a pytree like the weights', the size of one unit of each.
        temperature: of the scores.
    """

    outputs: list[Terms]
    units: dict[str, Any]
    temperature: Any


def fit_weights(support: SupportSet, recipe: Recipe, method: str, seed: int) -> FittedWeights:
    """Fit the weights of a method's score on all items for which a device has room.

    The strength of the prior is the one of `recipe.ridges` with the least loss on the items that
    each fold leaves out. If its gain over zero-shot does not exceed one standard error, the
    weights stay zero-shot.
    """
    support = limit_to_memory(support, method, seed)
    temperature = zero_shot_temperature(support, method, recipe)
    units = weight_units(support, method, temperature)
    outputs = jax.tree.map(jnp.asarray, outputs_by_noise(support))
    data = Regression(outputs, units, temperature)
    count, clusters = support.items.count, support.items.clusters
    left_out = left_out_by_fold(clusters, seed)  # (folds, n)
    ridges = np.asarray(recipe.ridges, np.float32)

    def fold_losses(ridge: Any, left_out: Any) -> jax.Array:
        weights = _regress(recipe, method, data, ridge, ~left_out)
        return _losses(recipe, method, data, weights, count)

    # (ridges, folds, n), of which each item is left out by one fold.
    by_fold = jax.vmap(jax.vmap(fold_losses, (None, 0)), (0, None))(ridges, left_out)
    unseen = np.sum(np.where(left_out, by_fold, 0.0), axis=1)
    zero = jax.tree.map(jnp.zeros_like, units)
    best = int(np.argmin(unseen.mean(axis=1)))
    frozen = np.asarray(_losses(recipe, method, data, zero, count))
    verdict = judge(frozen - unseen[best], clusters, f"weights of {method}")
    if not verdict.kept:
        return FittedWeights(zero, verdict)
    weights = _regress(recipe, method, data, ridges[best], np.ones(count, bool))
    return FittedWeights(weights, verdict)


def limit_to_memory(support: SupportSet, method: str, seed: int) -> SupportSet:
    """Return all items, or as many drawn by `seed` as a device has room for; print how many.

    A few hundred weights are fitted; thousands of items with hundreds of timesteps are tens of
    gigabytes, which every step of the regression reads.
    """
    size = sum(x.nbytes for x in jax.tree.leaves(support.outputs)) / support.items.count
    memory = Device.local().memory
    room = FITTED if memory is None else memory // 4  # as much again is working memory
    count = max(2, int(room / max(1, size)))
    if count >= support.items.count:
        return support
    if processes.is_main():
        print(
            f"weights of {method}: fitted to {count} of {support.items.count} shots, for all of "
            f"them would take {size * support.items.count / GIB:.1f} GiB of a device's memory.",
            file=sys.stderr,
        )
    order = np.random.default_rng([seed, 11]).permutation(support.items.count)
    return support.take(np.sort(order[:count]))


def left_out_by_fold(clusters: Sequence[Any] | np.ndarray, seed: int) -> np.ndarray:
    """Return which items each fold leaves out: (folds, n) bool, those of a cluster together."""
    ids = cluster_ids(list(clusters))
    count = int(ids.max()) + 1
    folds = min(FOLDS, count)
    fold_of = np.random.default_rng([seed, 9]).permutation(count) % folds
    return fold_of[ids] == np.arange(folds)[:, None]


def weight_units(support: SupportSet, method: str, temperature: float) -> dict[str, Any]:
    """Return for each weight the change that moves a margin by about the temperature."""
    spec = score_spec.method_named(method)

    def unit(x: jax.Array) -> jax.Array:
        """Return the units (N,) of outputs (n, candidates, N)."""
        if x.shape[1] == 1:  # shared by all candidates: no decision depends on its weight
            return jnp.zeros(x.shape[2:])
        margins = jnp.std(x[:, 0] - x[:, 1:].mean(axis=1), axis=0)
        return temperature / (margins + 1e-6)

    times, count = len(support.timesteps), support.items.count
    units: dict[str, Any] = {
        "lse": {
            layer: unit(jnp.mean(x[:, :, :times], 2).reshape(count, -1, x.shape[-1]))
            for layer, x in support.outputs.lse.items()
        },
        "timesteps": jnp.full(times, 1.0 / times),
    }
    if spec.error:
        units["error"] = jnp.ones(())
    if spec.uncond:
        units["lse_uncond"] = {
            layer: unit(jnp.mean(x[:, :times], 1).reshape(count, -1, x.shape[-1]))
            for layer, x in support.outputs.lse_uncond.items()
        }
    return units


def outputs_by_noise(support: SupportSet) -> list[Terms]:
    """Return the outputs under each noise."""
    return [support.for_noise(noise) for noise in range(len(support.seeds))]


def _losses(
    recipe: Recipe, method: str, data: Regression, weights: Mapping[str, Any], count: int
) -> jax.Array:
    """Return the cross-entropy of each of n = `count` items, averaged over the noises: (n,)."""
    by_noise = [
        losses.cross_entropy(
            item_scores(outputs, count, method, recipe, {method: weights}) / data.temperature
        )
        for outputs in data.outputs
    ]
    return jnp.mean(jnp.stack(by_noise), axis=0)


@partial(jax.jit, static_argnums=(0, 1))
def _regress(recipe: Recipe, method: str, data: Regression, ridge: Any, included: Any) -> Any:
    """Return the weights that Adam finds on the items where `included` (n,) is true."""

    def weights_of(variables: Any) -> Any:
        return jax.tree.map(jnp.multiply, variables, data.units)

    def loss(variables: Any) -> jax.Array:
        prior = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(variables))
        per_item = _losses(recipe, method, data, weights_of(variables), len(included))
        return (jnp.sum(jnp.where(included, per_item, 0.0)) + ridge * prior) / jnp.sum(included)

    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    def body(carry: Any, _: None) -> tuple[Any, None]:
        variables, opt_state = carry
        updates, opt_state = optimizer.update(jax.grad(loss)(variables), opt_state)
        return (optax.apply_updates(variables, updates), opt_state), None

    variables = jax.tree.map(jnp.zeros_like, data.units)
    (variables, _), _ = jax.lax.scan(body, (variables, optimizer.init(variables)), length=_STEPS)
    return weights_of(variables)
