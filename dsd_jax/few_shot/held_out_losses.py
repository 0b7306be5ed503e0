"""The losses of the held-out shots: zero-shot, and under what has been learned so far.

They are means over all noises under which the shots were looked at. With half of them the error of
the mean gain of 51 held-out items is up to 1.3 times as large, and a draw that gains on test items
is refused.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dsd_jax.benchmarks.encoded_items import gather_outputs, item_outputs
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.distributed import processes
from dsd_jax.distributed.sharding import fetch, replicate
from dsd_jax.few_shot.support_set import Recipe, Shots, noise_slice
from dsd_jax.few_shot.train_step import item_losses
from dsd_jax.matching.forward import OutputSpec, Terms, uncond_part, with_uncond


@dataclass(frozen=True)
class HeldOut:
    """Some of the shots, and how their losses are computed from terms.

    Attributes:
        shots: with the frozen model's terms.
        rows: (n,) the numbers of the held-out ones.
        recipe: whose loss.
        weights: learned weights of the scores, as a prompts pytree.
        spreads: the unit of each method's margins.
    """

    shots: Shots
    rows: np.ndarray
    recipe: Recipe
    weights: Mapping[str, Any]
    spreads: Mapping[str, float]

    def zero_shot(self) -> np.ndarray:
        """Return the losses of the frozen model, means over noises: (n,)."""
        return self._losses(self.shots, lambda some: some.terms)

    def under(self, model: Model, wanted: OutputSpec, prompts: Any) -> np.ndarray:
        """Return the losses under `prompts`, likewise.

        Every host scores its part of the items, in calls of the size that scoring has.

        Args:
            model: frozen.
            wanted: the terms that the losses read, without the empty caption's, which are the
                frozen model's.
            prompts: a prompts pytree, the same on all hosts.
        """
        tree = replicate(model.mesh, jax.tree.map(fetch, prompts))
        frozen = self.shots._replace(terms=uncond_part(self.shots.terms))
        seeds, timesteps = self.shots.seeds, self.shots.timesteps

        def terms_of(some: Shots) -> Terms:
            count, pictures = some.items.images.shape
            mine = some.items.take(processes.local_range(count))
            terms = item_outputs(model, mine, timesteps, seeds, prompts=tree, wanted=wanted)
            return with_uncond(gather_outputs(terms, pictures, count), some.terms)

        return self._losses(frozen, terms_of)

    def _losses(self, shots: Shots, terms_of: Callable[[Shots], Terms]) -> np.ndarray:
        found = []
        for piece in self.shots.pieces(len(self.rows)):
            some = shots.take(self.rows[piece])
            found.append(np.mean(list(self._by_noise(terms_of(some), len(piece))), axis=0))
        return np.concatenate(found)[: len(self.rows)]

    def _by_noise(self, terms: Terms, count: int) -> Iterator[np.ndarray]:
        times = len(self.shots.timesteps)
        for noise in range(len(self.shots.seeds)):
            here = noise_slice(terms, noise, times)
            yield fetch(item_losses(here, count, self.weights, self.recipe, self.spreads))
