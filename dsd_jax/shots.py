"""The few shots, and the frozen model's outputs for them, from which prompts are learned."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax import hosts, methods
from dsd_jax.bootstrap import numbered
from dsd_jax.errors import UserError
from dsd_jax.held_out import LEAST
from dsd_jax.items import Items, item_terms, terms_of_all_hosts
from dsd_jax.model import Model
from dsd_jax.recipe import Recipe
from dsd_jax.terms import NORMS, Terms, everything

_UNITS = np.geomspace(0.1, 4.0, 30)  # tried, times the margins' root mean square


class Shots(NamedTuple):
    """The few shots under every noise they are trained with, and what the frozen model says.

    terms: `item_terms` of all k items at R * T (noise, timestep)s, a noise's side by side.

    Every host has them all: they are few, and which ones a step takes is drawn anew each time.
    """

    items: Items
    timesteps: np.ndarray
    seeds: np.ndarray
    terms: Terms

    def take(self, rows: np.ndarray) -> "Shots":
        """Some of the items."""
        pictures = self.items.pictures.shape[1]
        inside = (pictures * rows[:, None] + np.arange(pictures)).reshape(-1)
        terms = jax.tree.map(lambda x: x[inside], self.terms)
        return self._replace(items=self.items.take(rows), terms=terms)


def look_at(model: Model, items: Items, timesteps: np.ndarray, seed: int, noises: int) -> Shots:
    """Run the frozen model once over the few shots under `noises` noises of training's own.

    Raises:
        UserError: the items have several pictures and several captions each.
    """
    count, pictures, captions = items.count, items.pictures.shape[1], items.captions.shape[1]
    if min(pictures, captions) > 1:
        raise UserError(
            f"items have {pictures} pictures and {captions} captions each; prompts are learned "
            "from items with one caption and several pictures, or the other way round."
        )
    seeds = np.arange(noises) + 1_000 * (seed + 1)  # evaluation's noise is that of `seed`
    mine = item_terms(
        model,
        items.take(hosts.part(count)),
        timesteps,
        seeds,
        wanted=everything(model.unet)._replace(norms=tuple(NORMS)),
    )
    terms = jax.tree.map(np.asarray, terms_of_all_hosts(mine, pictures, count))
    return Shots(items, timesteps, seeds, terms)


def split(
    clusters: Sequence[Any] | np.ndarray, part: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the items to learn from, and of those held out.

    A part of the items is held out: of at least `LEAST` clusters as far as half of them are that
    many, and at most half. Clusters stay whole, lest what is learned from is held out, too.
    """
    number = numbered(list(clusters))
    sizes = np.bincount(number)
    members = np.split(np.argsort(number, kind="stable"), np.cumsum(sizes)[:-1])
    count, half = len(number), len(number) // 2
    wanted = int(np.clip(round(part * count), min(LEAST, half), half))
    least = min(LEAST, len(members) // 2)
    learn: list[int] = []
    held: list[int] = []
    clusters_held = 0
    for one in np.random.default_rng([seed, 6]).permutation(len(members)):
        fits = len(held) + sizes[one] <= half
        if fits and (len(held) < wanted or clusters_held < least):
            held += members[one].tolist()
            clusters_held += 1
        else:
            learn += members[one].tolist()
    return np.array(learn, np.int64), np.array(held, np.int64)


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
        {name: x[:, :, columns] for name, x in terms.norms.items()},
    )


def scores_of(
    terms: Terms, items: int, name: str, recipe: Recipe, tree: Mapping[str, Any]
) -> jax.Array:
    """(B, candidates) scores of B items, the matching candidate first."""
    scores = methods.score(terms, name, recipe.layers, tree.get("weights", {}).get(name))
    return scores.reshape(items, -1)


def spread(shots: Shots, name: str, recipe: Recipe) -> float:
    """The unit of a method's margins: that in which zero-shot has the least cross-entropy.

    In a smaller or larger unit a loss would fall by making margins larger or smaller alone, and
    held-out items would applaud although no decision gets better.
    """
    times, count = len(shots.timesteps), shots.items.count
    found = []
    for noise in range(len(shots.seeds)):
        scores = scores_of(noise_slice(shots.terms, noise, times), count, name, recipe, {})
        found.append(np.asarray(scores[:, 1:] - scores[:, :1]))
    return margin_unit(np.concatenate(found))


def margin_unit(behind: np.ndarray) -> float:
    """The unit of margins in which their cross-entropy is least.

    behind: (n, candidates - 1), how far the others are behind the matching candidate, < 0.
    """
    behind = np.asarray(behind, np.float64)
    units = np.sqrt(np.mean(np.square(behind.max(axis=1))) + 1e-24) * _UNITS
    losses = [np.mean(_log_sum(behind / unit)) for unit in units]
    return float(units[int(np.argmin(losses))])


def _log_sum(behind: np.ndarray) -> np.ndarray:
    """log(1 + sum exp(behind)) of each row: the cross-entropy."""
    return np.logaddexp.reduce(np.concatenate([np.zeros((len(behind), 1)), behind], axis=1), axis=1)
