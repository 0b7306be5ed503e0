"""A reading task for the text tower: what a caption says stands on each side of the picture.

Stable Diffusion's text tower has learned to read (it is CLIP's) before the UNet sees it. Ours
starts from nothing, and through the denoising loss alone it is slow to learn that "a cat left of a
dog" is not "a dog left of a cat": a cat's token has not yet read what follows it, so later tokens
must say where the cat is. Here four queries attend to a caption's states as the UNet's
cross-attention does, and say what stands on the left, on the right, above and below. They are
dropped afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.data.scenes import INVERSE, Scene, read_plan
from dsd_jax.models.text import CLIPText, TextConfig

SIDES = ("left", "right", "above", "below")  # in the order of `scenes.RELATIONS`


class State(NamedTuple):
    """What learning to read carries from step to step; `params` is {"text": ..., "reader": ...}."""

    params: Any
    optimiser: Any


def sides(scenes: Sequence[Scene], concepts: int) -> np.ndarray:
    """What stands on each side: (P, 4) int32 concepts, or `concepts` for nothing in particular."""
    found = np.full((len(scenes), len(SIDES)), concepts, np.int32)
    for row, scene in zip(found, scenes, strict=True):
        plan = read_plan(scene)
        if plan.relation is not None:
            row[[plan.relation, INVERSE[plan.relation]]] = plan.concepts
    return found


def init_reader(key: jax.Array, features: int, concepts: int) -> dict[str, jax.Array]:
    """Random queries and projections for states of `features`, and a class for nothing."""
    keys, scale = jax.random.split(key, 4), features**-0.5
    return {
        "query": jax.random.normal(keys[0], (len(SIDES), features)),
        "to_k": scale * jax.random.normal(keys[1], (features, features)),
        "to_v": scale * jax.random.normal(keys[2], (features, features)),
        "to_out": scale * jax.random.normal(keys[3], (features, concepts + 1)),
    }


def read(reader: dict[str, jax.Array], states: jax.Array) -> jax.Array:
    """Text states (C, L, K) -> logits of what stands on each side (C, 4, concepts + 1)."""
    logits = jnp.einsum("SK,CLK->CSL", reader["query"], states @ reader["to_k"])
    weights = jax.nn.softmax(logits * states.shape[-1] ** -0.5, axis=-1)
    return jnp.einsum("CSL,CLK->CSK", weights, states @ reader["to_v"]) @ reader["to_out"]


def loss(reader: dict[str, jax.Array], states: jax.Array, expected: jax.Array) -> jax.Array:
    """Mean cross-entropy of all sides."""
    logits = read(reader, states)
    return optax.softmax_cross_entropy_with_integer_labels(logits, expected).mean()


def optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a short warm-up and a cosine to nothing."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 10, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def update_function(config: TextConfig, transform: optax.GradientTransformation) -> Callable:
    """The jitted (state, (ids, sides)) -> (state, {"loss", "read"}); "read": the part that is."""
    tower = CLIPText(config)

    def objective(params: Any, ids: jax.Array, expected: jax.Array) -> tuple[jax.Array, dict]:
        states = tower.apply({"params": params["text"]}, ids)
        right = jnp.argmax(read(params["reader"], states), axis=-1) == expected
        value = loss(params["reader"], states, expected)
        return value, {"loss": value, "read": jnp.mean(jnp.all(right, axis=1))}

    def update(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, dict]:
        grads, metrics = jax.grad(objective, has_aux=True)(state.params, *batch)
        updates, opt_state = transform.update(grads, state.optimiser, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), metrics

    return jax.jit(update, donate_argnums=0)
