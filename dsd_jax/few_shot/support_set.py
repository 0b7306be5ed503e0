"""The few shots, and the frozen model's outputs for them, from which prompts are learned."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, gather_outputs, item_outputs
from dsd_jax.config.recipes import Recipe
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.io.host_arrays import stacked
from dsd_jax.matching import score_functions
from dsd_jax.matching.batching import even_ranges
from dsd_jax.matching.forward import NORMS, OutputSpec, Terms, all_outputs, output_floats
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.training.losses import fit_temperature

TOGETHER = 2**28  # bytes of terms that are worked on at a time


class Shots(NamedTuple):
    """The few shots under every noise they are trained with, and what the frozen model says.

    terms: `item_outputs` of all k items at R * T (noise, timestep)s, a noise's side by side; in the
        host's memory, mapped to a file where they are large, and only what the recipes read.

    Every host has them all: which ones a step takes is drawn anew each time.
    """

    items: EncodedItems
    timesteps: np.ndarray
    seeds: np.ndarray
    terms: Terms

    def take(self, rows: np.ndarray) -> "Shots":
        """Some of the items."""
        pictures = self.items.images.shape[1]
        inside = (pictures * rows[:, None] + np.arange(pictures)).reshape(-1)
        terms = jax.tree.map(lambda x: x[inside], self.terms)
        return self._replace(items=self.items.take(rows), terms=terms)

    def pieces(self, count: int) -> list[np.ndarray]:
        """0..`count`-1 in pieces of one size: items whose terms are in memory at a time."""
        size = sum(x.nbytes for x in jax.tree.leaves(self.terms)) // self.items.count
        return even_ranges(count, max(1, TOGETHER // max(1, size)))

    def frozen_scores(self, noise: int, name: str, recipe: Recipe) -> np.ndarray:
        """(k, candidates) zero-shot scores of all items under a noise."""
        count, times, found = self.items.count, len(self.timesteps), []
        for piece in self.pieces(count):
            some = self if len(piece) == count else self.take(piece)
            terms = noise_slice(some.terms, noise, times)
            found.append(np.asarray(scores_of(terms, len(piece), name, recipe, {})))
        return np.concatenate(found)[:count]


def read_by(unet: UNetConfig, recipes: Iterable[Recipe]) -> OutputSpec:
    """Return the frozen model's terms that learning by these recipes reads.

    Score weights are learned for all layers; prompts read those of their methods, and of the empty
    caption, whose row is the frozen model's, what their losses do.
    """
    needed = []
    for recipe in recipes:
        found = [
            score_functions.required_outputs(unet, name, recipe.layers) for name in recipe.methods
        ]
        if recipe.denoise:
            found.append(OutputSpec((), error=True, uncond=True))
        if "weights" in recipe.kinds:
            found.append(OutputSpec(all_outputs(unet).layers, error=False, uncond=False))
        needed += found
    return score_functions.union(unet, needed)


def look_at(
    model: Model,
    items: EncodedItems,
    timesteps: np.ndarray,
    seed: int,
    noises: int,
    wanted: OutputSpec | None = None,
) -> Shots:
    """Run the frozen model once over the few shots under `noises` noises of training's own.

    Args:
        model: frozen.
        items: the few shots, in the same order on all hosts.
        timesteps: that are scored later.
        seed: of the draw, whose noises these are.
        noises: how many.
        wanted: the terms to keep, all by default; see `read_by`.

    Raises:
        UserError: the items have several pictures and several captions each, or there is no room
            on disk for terms that are too large for memory.
    """
    count, pictures, captions = items.count, items.images.shape[1], items.captions.shape[1]
    if min(pictures, captions) > 1:
        raise UserError(
            f"items have {pictures} pictures and {captions} captions each; prompts are learned "
            "from items with one caption and several pictures, or the other way round."
        )
    wanted = wanted or all_outputs(model.unet)._replace(norms=tuple(NORMS))
    seeds = np.arange(noises) + 1_000 * (seed + 1)  # evaluation's noise is that of `seed`
    numbers = pictures * noises * len(timesteps) * output_floats(model.unet, wanted, captions)

    def terms_of(piece: np.ndarray) -> Terms:
        mine = item_outputs(
            model,
            items.take(piece[processes.local_range(len(piece))]),
            timesteps,
            seeds,
            wanted=wanted,
        )
        return gather_outputs(mine, pictures, len(piece))

    pieces = even_ranges(count, max(1, TOGETHER // (4 * numbers)))
    terms = stacked((terms_of(piece) for piece in pieces), count * pictures)
    return Shots(items, timesteps, seeds, terms)


def noise_slice(terms: Terms, noise: int, times: int) -> Terms:
    """The terms under one of the noises: T of the R * T timesteps."""
    return take_timesteps(terms, slice(noise * times, (noise + 1) * times))


def take_timesteps(terms: Terms, columns: np.ndarray | slice) -> Terms:
    """The terms of some of the timesteps."""
    return Terms(
        {layer: x[:, :, columns] for layer, x in terms.lse.items()},
        {layer: x[:, columns] for layer, x in terms.lse_uncond.items()},
        None if terms.error is None else terms.error[:, :, columns],
        None if terms.error_uncond is None else terms.error_uncond[:, columns],
        {name: x[:, :, columns] for name, x in terms.norms.items()},
    )


def scores_of(
    terms: Terms, items: int, name: str, recipe: Recipe, tree: Mapping[str, Any]
) -> jax.Array:
    """(B, candidates) scores of B items, the matching candidate first."""
    scores = score_functions.score(terms, name, recipe.layers, tree.get("weights", {}).get(name))
    return scores.reshape(items, -1)


def spread(shots: Shots, name: str, recipe: Recipe) -> float:
    """The unit of a method's margins: that in which zero-shot has the least cross-entropy.

    In a smaller or larger unit a loss would fall by making margins larger or smaller alone, and
    held-out items would applaud although no decision gets better.
    """
    found = []
    for noise in range(len(shots.seeds)):
        scores = shots.frozen_scores(noise, name, recipe)
        found.append(scores[:, 1:] - scores[:, :1])
    return fit_temperature(np.concatenate(found))
