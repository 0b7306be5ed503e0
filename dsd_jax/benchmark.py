"""The emoji benchmark under a model: splits encoded once, scored by every method at once."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from dsd_jax import methods
from dsd_jax.data import emoji
from dsd_jax.errors import UserError
from dsd_jax.items import Items, candidate_scores, encode, item_terms
from dsd_jax.model import Model
from dsd_jax.terms import Terms, Wanted, with_uncond


class Split(NamedTuple):
    """A split's items, as people and as the model see them."""

    name: str
    source: emoji.Items
    items: Items


def load_split(model: Model, name: str, per_kind: int | None = None) -> Split:
    """The items of a split, such as "unseen-artist/test", encoded.

    Args:
        model: whose encoders to use.
        name: one of `emoji.split_names()`.
        per_kind: only so many items of each kind, the first ones; None is all.
    """
    source = emoji.load_items(name)
    count = len(source.kinds)
    if per_kind is not None:
        count = min(count, per_kind * len(set(source.kinds)))  # kinds take turns
    source = emoji.Items(source.captions[:count], source.images[:count], source.kinds[:count])
    return Split(name, source, encode(model, source.captions, source.images))


def draw_shots(split: Split, count: int, seed: int) -> Items:
    """`count` items of a split by seed, equally many of each kind as far as that goes.

    Raises:
        UserError: there are not so many items, or too few to learn from some and hold out others.
    """
    available = len(split.source.kinds)
    if not 2 <= count <= available:
        raise UserError(
            f"shots is {count}; expected 2 to {available}, the number of items of {split.name}."
        )
    order = np.random.default_rng([seed, count, 8]).permutation(len(split.source.kinds))
    kinds = np.asarray(split.source.kinds)
    turns = {kind: iter(order[kinds[order] == kind]) for kind in dict.fromkeys(split.source.kinds)}
    names = list(turns)
    return split.items.take([next(turns[names[i % len(names)]]) for i in range(count)])


def wanted_for(
    model: Model, names: Sequence[str], layers: Sequence[str], prompts: Sequence[Mapping[str, Any]]
) -> Wanted:
    """All that the methods read, with the learned weights of any of the prompts."""
    learned = [tree.get("weights", {}) for tree in prompts] or [{}]
    every = [
        methods.needs(model.unet, name, layers, weights.get(name))
        for name in names
        for weights in learned
    ]
    layers = tuple(dict.fromkeys(layer for wanted in every for layer in wanted.layers))
    return Wanted(layers, any(w.error for w in every), any(w.uncond for w in every))


def split_terms(
    model: Model,
    split: Split,
    timesteps: np.ndarray,
    seed: int,
    wanted: Wanted,
    prompts: Mapping[str, Any] | None = None,
    frozen: Terms | None = None,
) -> Terms:
    """The terms of a split's items; under prompts with the empty caption's terms of `frozen`."""
    label = f"{split.name} {'zero-shot' if prompts is None else 'few-shot'}"
    if prompts is None:
        return item_terms(model, split.items, timesteps, (seed,), None, wanted, label)
    if not set(prompts) & {"lora", "tokens"}:
        return frozen  # weights alone read what is already there
    wanted = wanted._replace(uncond=False)
    terms = item_terms(model, split.items, timesteps, (seed,), prompts, wanted, label)
    return with_uncond(terms, frozen)


def split_scores(
    terms: Terms, names: Sequence[str], layers: Sequence[str], prompts: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """{method: (n, 2)} scores, the matching picture's first."""
    weights = prompts.get("weights", {})
    return {
        name: candidate_scores(methods.score(terms, name, layers, weights.get(name)))
        for name in names
    }
