"""The emoji benchmark under a model: splits encoded once, scored by every method at once."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsd_jax import hosts, methods
from dsd_jax.data import emoji
from dsd_jax.errors import UserError
from dsd_jax.items import Items, candidate_scores, encode, item_terms, terms_of_all_hosts
from dsd_jax.model import Model
from dsd_jax.terms import Terms, Wanted, with_uncond


class Split(NamedTuple):
    """A split's items: all of them as people see them, this host's part as the model does."""

    name: str
    source: emoji.Items
    items: Items


def load_split(
    model: Model, name: str, per_kind: int | None = None, cache: str | Path = ""
) -> Split:
    """The items of a split, such as "unseen-artist/test"; a host reads and encodes its part alone.

    Args:
        model: whose encoders to use.
        name: one of `emoji.split_names()`.
        per_kind: only so many items of each kind, the first ones; None is all.
        cache: as for `items.encode`.
    """
    source = emoji.load_items(name)
    if per_kind is not None:
        source = source.first(per_kind * len(set(source.kinds)))  # kinds take turns
    return Split(name, source, read(model, source, hosts.part(len(source.kinds)), cache))


def read(
    model: Model, source: emoji.Items, numbers: Sequence[int] | np.ndarray, cache: str | Path
) -> Items:
    """Some items, read and encoded."""
    captions = [[source.captions[number]] for number in numbers]
    return encode(model, captions, source.images(numbers), numbers, cache)


def load_shots(model: Model, name: str, count: int, seed: int, cache: str | Path = "") -> Items:
    """`count` items of a split by seed, on all hosts, each of which read and encoded its part.

    Raises:
        UserError: there are not so many items, or too few to learn from some and hold out others.
    """
    source = emoji.load_items(name)
    numbers = draw_shots(name, source.kinds, count, seed)
    mine = [numbers[i] for i in hosts.part(count)]
    return hosts.gather(read(model, source, mine, cache), count)


def draw_shots(name: str, kinds: Sequence[str], count: int, seed: int) -> list[int]:
    """The numbers of `count` items by seed, equally many of each kind as far as that goes.

    Raises:
        UserError: as `load_shots`.
    """
    if not 2 <= count <= len(kinds):
        raise UserError(
            f"shots is {count}; expected 2 to {len(kinds)}, the number of items of {name}."
        )
    order = np.random.default_rng([seed, count, 8]).permutation(len(kinds))
    ordered = np.asarray(kinds)[order]
    turns = {kind: iter(order[ordered == kind]) for kind in dict.fromkeys(kinds)}
    names = list(turns)
    return [int(next(turns[names[i % len(names)]])) for i in range(count)]


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
    """The terms of a split's items; under prompts with the empty caption's terms of `frozen`.

    Each host computes those of its part; all of them end with those of all items.
    """
    label = f"{split.name} {'zero-shot' if prompts is None else 'few-shot'}"
    if prompts is not None and not set(prompts) & {"lora", "tokens"}:
        return frozen  # weights alone read what is already there
    if prompts is not None:
        wanted = wanted._replace(uncond=False)
    mine = item_terms(model, split.items, timesteps, (seed,), prompts, wanted, label)
    terms = terms_of_all_hosts(mine, split.items.pictures, len(split.source.kinds))
    return terms if prompts is None else with_uncond(terms, frozen)


def split_scores(
    terms: Terms,
    items: int,
    names: Sequence[str],
    layers: Sequence[str],
    prompts: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    """{method: (n, candidates)} scores, the matching one's first."""
    weights = prompts.get("weights", {})
    return {
        name: candidate_scores(methods.score(terms, name, layers, weights.get(name)), items)
        for name in names
    }
