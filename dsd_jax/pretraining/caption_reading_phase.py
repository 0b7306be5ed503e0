"""Phase 2 trains the text encoder alone, to say which thing a caption puts on each side.

Stable Diffusion's text encoder can read (it is CLIP's) before the UNet sees it. The bundled one
starts from random params, and through the denoising loss alone it is slow to learn that "a cat left
of a dog" is not "a dog left of a cat": a cat's token has not yet read what follows it, so later
tokens must say where the cat is. In this task four queries attend to a caption's states, as the
UNet's cross-attention does, and a reader predicts what is on the left, on the right, above and
below, and how big it is. The reader is dropped after phase 3, which keeps a little of the task.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dsd_jax.config.pretrain_config import PretrainConfig
from dsd_jax.data.synthetic.scenes import (
    INVERSE,
    SIZE_WORDS,
    Scene,
    caption,
    read_plan,
    sample_scene,
)
from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.models.text_encoder import CLIPTextEncoder, TextConfig
from dsd_jax.pretraining.network_configs import bundled_tokenizer, text_config
from dsd_jax.pretraining.scene_batches import training_stream
from dsd_jax.pretraining.train_phase import (
    GradientFn,
    Stage,
    adam_with_cosine,
    apply,
    create_state,
    make_update,
    run_phase,
)

SIDES = ("left", "right", "above", "below")  # in the order of `scenes.RELATIONS`
UNSAID = SIZE_WORDS.index("")


def side_labels(
    scenes: Sequence[Scene], captions: Sequence[str], concepts: Sequence[str]
) -> np.ndarray:
    """Return the label of each caption for each side: (C, 4, 2) int32.

    The last axis is a concept and an index of SIZE_WORDS. The concept `len(concepts)` stands for
    nothing in particular, which is all that an empty caption and one about a single thing say.
    """
    labels = np.full((len(scenes), len(SIDES), 2), (len(concepts), UNSAID), np.int32)
    for row, scene, text in zip(labels, scenes, captions, strict=True):
        plan = read_plan(scene)
        if plan.relation is not None and text:
            sides = [plan.relation, INVERSE[plan.relation]]
            row[sides] = [(index, stated_size(text, concepts[index])) for index in plan.concepts]
    return labels


def stated_size(text: str, name: str) -> int:
    """Return the index of the word in SIZE_WORDS that a caption has for the thing `name`."""
    words = f" {text} "
    sizes = [i for i, size in enumerate(SIZE_WORDS) if size and f" {size} {name} " in words]
    return sizes[0] if sizes else UNSAID


def init_reader(key: jax.Array, features: int, concepts: int) -> dict[str, jax.Array]:
    """Return random queries and projections for text states of `features` channels."""
    keys, scale = jax.random.split(key, 5), features**-0.5
    return {
        "query": jax.random.normal(keys[0], (len(SIDES), features)),
        "to_k": scale * jax.random.normal(keys[1], (features, features)),
        "to_v": scale * jax.random.normal(keys[2], (features, features)),
        "to_concept": scale * jax.random.normal(keys[3], (features, concepts + 1)),
        "to_size": scale * jax.random.normal(keys[4], (features, len(SIZE_WORDS))),
    }


def read(reader: dict[str, jax.Array], states: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return logits of each side, (C, 4, concepts + 1) and (C, 4, sizes), of states (C, L, D)."""
    logits = jnp.einsum("SD,CLD->CSL", reader["query"], states @ reader["to_k"])
    weights = jax.nn.softmax(logits * states.shape[-1] ** -0.5, axis=-1)
    sides = jnp.einsum("CSL,CLD->CSD", weights, states @ reader["to_v"])
    return sides @ reader["to_concept"], sides @ reader["to_size"]


def reading_loss(
    reader: dict[str, jax.Array], states: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the mean cross-entropy of concepts plus that of sizes, and the accuracy.

    A caption counts as read where all sides are right.
    """
    concepts, sizes = read(reader, states)
    losses = [
        optax.softmax_cross_entropy_with_integer_labels(logits, labels[..., i]).mean()
        for i, logits in enumerate((concepts, sizes))
    ]
    right = jnp.argmax(concepts, axis=-1) == labels[..., 0]
    right &= jnp.argmax(sizes, axis=-1) == labels[..., 1]
    return losses[0] + losses[1], jnp.mean(jnp.all(right, axis=1))


def reading_gradients(config: TextConfig) -> GradientFn:
    """Build the gradients of `reading_loss` for batches (ids, labels); "read" is the accuracy."""
    encoder = CLIPTextEncoder(config)

    def loss(params: Any, batch: tuple[jax.Array, jax.Array], step: jax.Array):
        del step
        ids, labels = batch
        states = apply(encoder, params["text"], ids)
        value, accuracy = reading_loss(params["reader"], states, labels)
        return value, {"loss": value, "read": accuracy}

    return jax.grad(loss, has_aux=True)


def train_reader(config: PretrainConfig, workdir: Path, start: Any) -> Any:
    """Train the text encoder, `start`'s if given; return {"text", "reader"}."""
    settings, stream, tokenizer = config.text, training_stream(), bundled_tokenizer()
    text, concepts = text_config(config, len(tokenizer)), stream.sprites.concepts
    key = jax.random.key(config.seed)
    params = {
        "text": start["text"] if start else _init_text_encoder(text, key),
        "reader": init_reader(jax.random.fold_in(key, 1), text.hidden_size, len(concepts)),
    }
    optimizer = adam_with_cosine(settings.learning_rate, settings.steps, settings.steps // 10)

    def batch(step: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([config.seed, 6, step])
        scenes = [sample_scene(rng, stream.pairs, stream.styles) for _ in range(settings.batch)]
        captions = [caption(scene, concepts, rng) for scene in scenes]
        return tokenize(tokenizer, captions), side_labels(scenes, captions, concepts)

    state = run_phase(
        workdir / "text",
        create_state(params, optimizer),
        [Stage("text", settings.steps, make_update(reading_gradients(text), optimizer), batch)],
        identity={"start": config.start, "text": settings.model_dump()},
        config=config,
    )
    return state.params


def _init_text_encoder(config: TextConfig, key: jax.Array) -> Any:
    ids = jnp.zeros((1, config.positions), jnp.int32)
    return jax.jit(CLIPTextEncoder(config).init)(key, ids)["params"]
