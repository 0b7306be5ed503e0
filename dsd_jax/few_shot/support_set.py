"""The support set: a few items and the frozen model's outputs, from which prompts are learned."""

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
from dsd_jax.io.progress import UNSEEN, Work
from dsd_jax.matching import score_functions
from dsd_jax.matching.call_plan import even_ranges
from dsd_jax.matching.forward import NORMS, OutputSpec, Terms, all_outputs, output_floats
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.training.losses import fit_temperature

TOGETHER = 2**28  # bytes of outputs that are worked on at a time


class SupportSet(NamedTuple):
    """A few items, and the frozen model's outputs for them under each training noise.

    Every host has all of it: which items a step takes is drawn anew each time.

    Attributes:
        items: n of them.
        timesteps: (T,).
        seeds: (K,), one of each noise.
        outputs: of `item_outputs` at K * T (noise, timestep)s, a noise's side by side; on the host,
            mapped to a file where they are large, and only those that the recipes read.
    """

    items: EncodedItems
    timesteps: np.ndarray
    seeds: np.ndarray
    outputs: Terms

    def take(self, indices: np.ndarray) -> "SupportSet":
        """Return the items at `indices`."""
        images = self.items.images.shape[1]
        rows = (images * indices[:, None] + np.arange(images)).reshape(-1)
        outputs = jax.tree.map(lambda x: x[rows], self.outputs)
        return self._replace(items=self.items.take(indices), outputs=outputs)

    def ranges(self, count: int) -> list[np.ndarray]:
        """Divide range(count) into ranges of one size, of items whose outputs fit into memory."""
        size = sum(x.nbytes for x in jax.tree.leaves(self.outputs)) // self.items.count
        return even_ranges(count, max(1, TOGETHER // max(1, size)))

    def for_noise(self, noise: int) -> Terms:
        """Return the outputs under one of the noises: T of the K * T timesteps."""
        return for_noise(self.outputs, noise, len(self.timesteps))

    def frozen_scores(self, noise: int, method: str, recipe: Recipe) -> np.ndarray:
        """Return the zero-shot scores (n, candidates) of all items under a noise."""
        count, scores = self.items.count, []
        for indices in self.ranges(count):
            part = self if len(indices) == count else self.take(indices)
            scores.append(
                np.asarray(item_scores(part.for_noise(noise), len(indices), method, recipe))
            )
        return np.concatenate(scores)[:count]


def outputs_read_by(unet: UNetConfig, recipes: Iterable[Recipe]) -> OutputSpec:
    """Return the frozen model's outputs that learning by these recipes reads.

    Score weights are learned for all layers; prompts read the empty caption's outputs, which stay
    the frozen model's, as their losses do.
    """
    specs = []
    for recipe in recipes:
        specs += [
            score_functions.required_outputs(unet, name, recipe.layers) for name in recipe.methods
        ]
        if recipe.denoise:
            specs.append(OutputSpec((), error=True, uncond=True))
        if "weights" in recipe.kinds:
            specs.append(OutputSpec(all_outputs(unet).layers, error=False, uncond=False))
    return score_functions.union(unet, specs)


def cache_frozen_outputs(
    model: Model,
    items: EncodedItems,
    timesteps: np.ndarray,
    seed: int,
    *,
    noises: int,
    outputs: OutputSpec | None = None,
    work: Work = UNSEEN,
) -> SupportSet:
    """Run the frozen model once on all items, under each training noise.

    Args:
        model: frozen.
        items: in the same order on all hosts.
        timesteps: those of evaluation.
        seed: of the draw of items; the noises differ from evaluation's and other draws'.
        noises: K, how many.
        outputs: to keep, all by default; see `outputs_read_by`.
        work: that this is.

    Raises:
        UserError: the items have several images and several captions each, or there is no room
            on disk for outputs that are too large for memory.
    """
    count, images, captions = items.count, items.images.shape[1], items.captions.shape[1]
    if min(images, captions) > 1:
        raise UserError(
            f"items have {images} images and {captions} captions each; prompts are learned "
            "from items with one caption and several images, or the other way round."
        )
    outputs = outputs or all_outputs(model.unet)._replace(norms=tuple(NORMS))
    seeds = np.arange(noises) + 1_000 * (seed + 1)  # evaluation's noise is that of `seed`
    floats = images * noises * len(timesteps) * output_floats(model.unet, outputs, captions)

    ranges = even_ranges(count, max(1, TOGETHER // (4 * floats)))
    part = work.part(1 / len(ranges))

    def outputs_of(indices: np.ndarray) -> Terms:
        local = items.take(indices[processes.local_range(len(indices))])
        terms = item_outputs(model, local, timesteps, seeds, outputs=outputs, work=part)
        return gather_outputs(terms, images, len(indices))

    cached = stacked((outputs_of(indices) for indices in ranges), count * images)
    return SupportSet(items, timesteps, seeds, cached)


def for_noise(outputs: Terms, noise: int, timesteps: int) -> Terms:
    """Return the outputs under one of the noises, each of which has so many timesteps."""
    return take_timesteps(outputs, slice(noise * timesteps, (noise + 1) * timesteps))


def take_timesteps(outputs: Terms, columns: np.ndarray | slice) -> Terms:
    """Return the outputs at the timesteps with these indices."""
    return Terms(
        {layer: x[:, :, columns] for layer, x in outputs.lse.items()},
        {layer: x[:, columns] for layer, x in outputs.lse_uncond.items()},
        None if outputs.error is None else outputs.error[:, :, columns],
        None if outputs.error_uncond is None else outputs.error_uncond[:, columns],
        {name: x[:, :, columns] for name, x in outputs.norms.items()},
    )


def item_scores(
    outputs: Terms,
    items: int,
    method: str,
    recipe: Recipe,
    score_weights: Mapping[str, Any] | None = None,
) -> jax.Array:
    """Return the scores (items, candidates) by a method, the matching candidate first.

    `score_weights` are {method: learned weights}.
    """
    weights = (score_weights or {}).get(method)
    return score_functions.score(outputs, method, recipe.layers, weights).reshape(items, -1)


def zero_shot_temperature(support: SupportSet, method: str, recipe: Recipe) -> float:
    """Return the temperature at which the zero-shot scores have the least cross-entropy.

    At a smaller or larger one the held-out loss would fall by scaling all margins alone, although
    no prediction changes.
    """
    margins = []
    for noise in range(len(support.seeds)):
        scores = support.frozen_scores(noise, method, recipe)
        margins.append(scores[:, 1:] - scores[:, :1])
    return fit_temperature(np.concatenate(margins))
