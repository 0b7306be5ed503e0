"""The few shots: how prompts are learned from them, and what the frozen model says of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax import methods
from dsd_jax.errors import UserError
from dsd_jax.items import PICTURES, Items, item_terms
from dsd_jax.losses import LOSSES
from dsd_jax.model import Model
from dsd_jax.prompts import KINDS
from dsd_jax.terms import Terms

_UNITS = np.geomspace(0.1, 4.0, 30)  # tried, times the margins' root mean square


@dataclass(frozen=True)
class Recipe:
    """How prompts are learned; `configs/emoji.py` says what each field does."""

    kinds: tuple[str, ...]
    methods: tuple[str, ...]
    layers: tuple[str, ...]
    loss: str
    margin: float
    denoise: float
    steps: int
    batch: int
    timesteps: int
    learning_rate: float
    weight_decay: float
    rank: int
    tokens: int
    ridges: tuple[float, ...]
    held_out: float
    check_every: int
    patience: int

    def __post_init__(self):
        """Check names and numbers; raises `UserError`."""
        for name in self.methods:
            methods.method_named(name)
        _check_names("kinds", self.kinds, KINDS)
        _check_names("loss", (self.loss,), LOSSES)
        for field in ("methods", "ridges"):
            if not getattr(self, field):
                raise UserError(f"{field} is empty; expected at least one.")
        for field in ("steps", "batch", "timesteps", "rank", "tokens", "check_every", "patience"):
            if getattr(self, field) < 1:
                raise UserError(f"{field} is {getattr(self, field)}; expected 1 or more.")


def _check_names(field: str, names: Sequence[str], known: Sequence[str]) -> None:
    for name in names:
        if name not in known:
            raise UserError(f"{field}: '{name}' is unknown; expected {', '.join(known)}.")
    if not names:
        raise UserError(f"{field} is empty; expected some of {', '.join(known)}.")


class Shots(NamedTuple):
    """The few shots under every noise they are trained with, and what the frozen model says.

    terms: `item_terms` of all k items at R * T (noise, timestep)s, a noise's side by side.
    """

    items: Items
    timesteps: np.ndarray
    seeds: np.ndarray
    terms: Terms

    def take(self, rows: np.ndarray) -> "Shots":
        """Some of the items."""
        both = (PICTURES * rows[:, None] + np.arange(PICTURES)).reshape(-1)
        terms = jax.tree.map(lambda x: x[both], self.terms)
        return self._replace(items=self.items.take(rows), terms=terms)


def look_at(model: Model, items: Items, timesteps: np.ndarray, seed: int, noises: int) -> Shots:
    """Run the frozen model once over the few shots under `noises` noises of training's own."""
    seeds = np.arange(noises) + 1_000 * (seed + 1)  # evaluation's noise is that of `seed`
    return Shots(items, timesteps, seeds, item_terms(model, items, timesteps, seeds))


def split(count: int, part: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the items to learn from, and of those held out: at least 2, at most half."""
    order = np.random.default_rng([seed, 6]).permutation(count)
    held = int(np.clip(round(part * count), min(2, count // 2), count // 2))
    return order[held:], order[:held]


def noise_slice(terms: Terms, noise: int, times: int) -> Terms:
    """The terms under one of the noises: T of the R * T timesteps."""
    return take_timesteps(terms, np.arange(noise * times, (noise + 1) * times))


def take_timesteps(terms: Terms, columns: np.ndarray) -> Terms:
    """The terms of some of the timesteps."""
    return Terms(
        {layer: x[:, :, columns] for layer, x in terms.lse.items()},
        {layer: x[:, columns] for layer, x in terms.lse_uncond.items()},
        terms.error[:, :, columns],
        terms.error_uncond[:, columns],
    )


def scores_of(terms: Terms, name: str, recipe: Recipe, tree: Mapping[str, Any]) -> jax.Array:
    """(B, 2) scores of items whose terms are (B * 2, 1, T, ...), the matching candidate first."""
    scores = methods.score(terms, name, recipe.layers, tree.get("weights", {}).get(name))
    return scores.reshape(-1, PICTURES)


def spread(shots: Shots, name: str, recipe: Recipe) -> float:
    """The unit of a method's margins: that in which zero-shot has the least cross-entropy.

    In a smaller or larger unit a loss would fall by making margins larger or smaller alone, and
    held-out items would applaud although no decision gets better.
    """
    times = len(shots.timesteps)
    margins = []
    for noise in range(len(shots.seeds)):
        scores = scores_of(noise_slice(shots.terms, noise, times), name, recipe, {})
        margins.append(np.asarray(scores[:, 0] - scores[:, 1], np.float64))
    every = np.concatenate(margins)
    units = np.sqrt(np.mean(np.square(every)) + 1e-24) * _UNITS
    losses = [np.mean(np.logaddexp(0.0, -every / unit)) for unit in units]
    return float(units[int(np.argmin(losses))])
