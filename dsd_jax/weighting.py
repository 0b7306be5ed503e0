"""Learned weights of layers, heads, timesteps and errors: a logistic regression around zero-shot.

The frozen model's terms are computed once; what is learned are differences from the zero-shot
weights, in units in which each of them alone would move a margin by about its usual size.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax import losses, methods
from dsd_jax.items import PICTURES
from dsd_jax.shots import Recipe, Shots, noise_slice, scores_of, spread
from dsd_jax.terms import Terms

_STEPS, _RATE = 300, 0.05


def fit_weights(
    shots: Shots, recipe: Recipe, name: str, learn: np.ndarray, held_out: np.ndarray
) -> dict[str, Any]:
    """The prompts kind `weights` for one method.

    The strength of the prior is the one of `recipe.ridges` that serves the held-out items best;
    infinity, the zero-shot formula, is among the choices. Then all items are used.
    """
    scale, units = spread(shots, name, recipe), unit_weights(shots, recipe, name)
    count = len(learn) + len(held_out)
    parts = (learn, held_out, np.arange(count))
    every = [noise_terms(shots.take(rows)) for rows in parts]
    zero = jax.tree.map(jnp.zeros_like, units)
    loss = partial(_mean_loss, recipe, name, scale)
    best, chosen = float(loss(zero, every[1])), None
    for ridge in recipe.ridges:
        found = _regress(recipe, name, every[0], units, scale, ridge / len(learn))
        value = float(loss(found, every[1]))
        if value < best:
            best, chosen = value, ridge
    if chosen is None:
        return zero
    return _regress(recipe, name, every[2], units, scale, chosen / count)


def unit_weights(shots: Shots, recipe: Recipe, name: str) -> dict[str, Any]:
    """Per weight, the step that moves a margin by about the zero-shot margin's spread."""
    method, size = methods.method_named(name), spread(shots, name, recipe)

    def unit(x: jax.Array) -> jax.Array:
        margins = jnp.std(x[::PICTURES] - x[1::PICTURES], axis=0)
        return size / (margins + 1e-6)

    times = len(shots.timesteps)
    units: dict[str, Any] = {
        "lse": {layer: unit(x[:, 0, :times].mean(1)) for layer, x in shots.terms.lse.items()},
        "timesteps": jnp.full(times, 1.0 / times),
    }
    if method.error is not None:
        units["error"] = jnp.ones(())
    if method.uncond:
        units["lse_uncond"] = {
            layer: unit(x[:, :times].mean(1)) for layer, x in shots.terms.lse_uncond.items()
        }
    return units


def noise_terms(shots: Shots) -> list[Terms]:
    """The terms under each noise."""
    times = len(shots.timesteps)
    return [noise_slice(shots.terms, noise, times) for noise in range(len(shots.seeds))]


def _mean_loss(
    recipe: Recipe, name: str, scale: Any, weights: Mapping[str, Any], terms: list[Terms]
) -> jax.Array:
    """Cross-entropy of all items under all noises."""
    tree = {"weights": {name: weights}}
    return jnp.mean(
        jnp.stack(
            [losses.cross_entropy(scores_of(x, name, recipe, tree) / scale).mean() for x in terms]
        )
    )


@partial(jax.jit, static_argnums=(0, 1))
def _regress(
    recipe: Recipe, name: str, terms: list[Terms], units: Any, scale: Any, ridge: Any
) -> Any:
    """Adam on the whole set; returns weights, not units."""

    def weights_of(steps: Any) -> Any:
        return jax.tree.map(jnp.multiply, steps, units)

    def loss(steps: Any) -> jax.Array:
        prior = sum(jnp.sum(jnp.square(x)) for x in jax.tree.leaves(steps))
        return _mean_loss(recipe, name, scale, weights_of(steps), terms) + ridge * prior

    transform = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    def body(carry: Any, _: None) -> tuple[Any, None]:
        steps, state = carry
        updates, state = transform.update(jax.grad(loss)(steps), state)
        return (optax.apply_updates(steps, updates), state), None

    steps = jax.tree.map(jnp.zeros_like, units)
    (steps, _), _ = jax.lax.scan(body, (steps, transform.init(steps)), length=_STEPS)
    return weights_of(steps)
