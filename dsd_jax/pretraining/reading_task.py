"""A reading task for the text tower: what a caption says of each side of the picture.

Stable Diffusion's text tower has learned to read (it is CLIP's) before the UNet sees it. Ours
starts from nothing, and through the denoising loss alone it is slow to learn that "a cat left of a
dog" is not "a dog left of a cat": a cat's token has not yet read what follows it, so later tokens
must say where the cat is. Here four queries attend to a caption's states as the UNet's
cross-attention does, and say what stands on the left, on the right, above and below, and how big it
is. They are dropped afterwards.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.data.synthetic.scenes import INVERSE, SIZE_WORDS, Scene, read_plan
from dsd_jax.models.text_encoder import CLIPTextEncoder, TextConfig

SIDES = ("left", "right", "above", "below")  # in the order of `scenes.RELATIONS`
UNSAID = SIZE_WORDS.index("")


class State(NamedTuple):
    """What learning to read carries from step to step; `params` is {"text": ..., "reader": ...}."""

    params: Any
    optimiser: Any


def sides(scenes: Sequence[Scene], texts: Sequence[str], concepts: Sequence[str]) -> np.ndarray:
    """What each caption says of each side: (P, 4, 2) int32, a concept and an index of SIZE_WORDS.

    The number of concepts stands for nothing in particular, which is all that an empty caption and
    one about a single thing say.
    """
    found = np.full((len(scenes), len(SIDES), 2), (len(concepts), UNSAID), np.int32)
    for row, scene, text in zip(found, scenes, texts, strict=True):
        plan = read_plan(scene)
        if plan.relation is not None and text:
            here = [plan.relation, INVERSE[plan.relation]]
            row[here] = [(concept, said_size(text, concepts[concept])) for concept in plan.concepts]
    return found


def said_size(text: str, name: str) -> int:
    """The index of the word in SIZE_WORDS that `text` has for the thing called `name`."""
    words = f" {text} "
    said = [i for i, size in enumerate(SIZE_WORDS) if size and f" {size} {name} " in words]
    return said[0] if said else UNSAID


def init_reader(key: jax.Array, features: int, concepts: int) -> dict[str, jax.Array]:
    """Random queries and projections for states of `features`, and a class for nothing."""
    keys, scale = jax.random.split(key, 5), features**-0.5
    return {
        "query": jax.random.normal(keys[0], (len(SIDES), features)),
        "to_k": scale * jax.random.normal(keys[1], (features, features)),
        "to_v": scale * jax.random.normal(keys[2], (features, features)),
        "to_concept": scale * jax.random.normal(keys[3], (features, concepts + 1)),
        "to_size": scale * jax.random.normal(keys[4], (features, len(SIZE_WORDS))),
    }


def read(reader: dict[str, jax.Array], states: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Text states (C, L, K) -> logits of each side: (C, 4, concepts + 1) and (C, 4, sizes)."""
    logits = jnp.einsum("SK,CLK->CSL", reader["query"], states @ reader["to_k"])
    weights = jax.nn.softmax(logits * states.shape[-1] ** -0.5, axis=-1)
    found = jnp.einsum("CSL,CLK->CSK", weights, states @ reader["to_v"])
    return found @ reader["to_concept"], found @ reader["to_size"]


def loss(
    reader: dict[str, jax.Array], states: jax.Array, expected: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of concepts and of sizes; the part of captions that are read aright."""
    total, right = 0.0, True
    for logits, labels in zip(
        read(reader, states), (expected[..., 0], expected[..., 1]), strict=True
    ):
        total += optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
        right &= jnp.argmax(logits, axis=-1) == labels
    return total, jnp.mean(jnp.all(right, axis=1))


def optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam with a short warm-up and a cosine to nothing."""
    schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, steps // 10, steps)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule, b2=0.99))


def update_function(config: TextConfig, transform: optax.GradientTransformation) -> Callable:
    """The jitted (state, (ids, sides)) -> (state, {"loss", "read"}); "read": the part that is."""
    tower = CLIPTextEncoder(config)

    def objective(params: Any, ids: jax.Array, expected: jax.Array) -> tuple[jax.Array, dict]:
        states = tower.apply({"params": params["text"]}, ids)
        value, right = loss(params["reader"], states, expected)
        return value, {"loss": value, "read": right}

    def update(state: State, batch: tuple[jax.Array, jax.Array]) -> tuple[State, dict]:
        grads, metrics = jax.grad(objective, has_aux=True)(state.params, *batch)
        updates, opt_state = transform.update(grads, state.optimiser, state.params)
        return State(optax.apply_updates(state.params, updates), opt_state), metrics

    return jax.jit(update, donate_argnums=0)
