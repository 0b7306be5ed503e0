"""Batches of the support set: the items of a step, their timesteps and their noise.

They depend on (seed, step) alone: a resumed run sees what an uninterrupted one does, on any number
of hosts and devices. Every host makes its part of the global batch.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.distributed.sharding import ROWS, WHOLE, replicate, shard_rows
from dsd_jax.few_shot.support_set import Recipe, SupportSet, take_timesteps
from dsd_jax.matching.forward import uncond_part


class BatchItems(NamedTuple):
    """The B items of a batch; leading axes are sharded over all devices.

    Attributes:
        latents: (B, P, h, w, channels).
        texts: of captions (B, J).
        indices: (B,), by which noise is keyed.
        loss_weight: (B,) float32, 1 / B, or 0 for items that only fill the batch up.
        lse_uncond: {layer: (B, P, T, N)} of the frozen model, where it is read.
        error_uncond: (B, P, T), likewise.
    """

    latents: Any
    texts: EncodedCaptions
    indices: Any
    loss_weight: Any
    lse_uncond: dict[str, Any]
    error_uncond: Any


class Batch(NamedTuple):
    """A batch of items at some of the timesteps, all under the noise of one seed.

    Attributes:
        items: B of them.
        columns: (T,), indices of the timesteps among the support set's.
        timesteps: (T,).
        seed: ().
    """

    items: BatchItems
    columns: Any
    timesteps: Any
    seed: Any


# How a batch is sharded: a prefix of its pytree.
BATCH_SPECS = Batch._make((ROWS, WHOLE, WHOLE, WHOLE))


def make_batch(
    mesh: Mesh,
    support: SupportSet,
    chosen: np.ndarray,
    noise: int,
    *,
    columns: np.ndarray | None = None,
    multiple: int = 1,
) -> Batch:
    """Place a batch of items on the devices of `mesh`.

    Args:
        mesh: of all hosts.
        support: from which the items are taken.
        chosen: (B,), their indices.
        noise: index of the noise.
        columns: indices of the timesteps, all by default.
        multiple: the batch is filled up so that every device gets a multiple of it.
    """
    columns = np.arange(len(support.timesteps)) if columns is None else columns
    missing = -len(chosen) % (mesh.size * multiple)
    filled = np.concatenate([chosen, np.repeat(chosen[:1], missing)])
    weight = np.where(np.arange(len(filled)) < len(chosen), np.float32(1 / len(chosen)), 0)
    local = np.split(np.arange(len(filled)), jax.process_count())[jax.process_index()]
    uncond = support._replace(outputs=uncond_part(support.outputs)).take(filled[local])
    frozen = take_timesteps(uncond.outputs, noise * len(support.timesteps) + columns)
    encoded = uncond.items

    def by_item(x: np.ndarray) -> np.ndarray:
        return np.reshape(x, (*encoded.images.shape, *x.shape[1:]))

    items = BatchItems(
        encoded.latents[encoded.images],
        encoded.texts.map(lambda x: x[encoded.captions]),
        encoded.indices,
        weight[local].astype(np.float32),
        {layer: by_item(np.asarray(x)) for layer, x in frozen.lse_uncond.items()},
        None if frozen.error_uncond is None else by_item(np.asarray(frozen.error_uncond)),
    )
    shared = (columns, support.timesteps[columns], np.asarray(support.seeds[noise]))
    return Batch(shard_rows(mesh, items), *replicate(mesh, shared))


@dataclass(frozen=True)
class BatchSampler:
    """The batches of a run.

    Attributes:
        mesh: of all hosts.
        support: from which items are drawn.
        indices: of the items that are trained on.
        recipe: how many items and timesteps, in how many parts.
        seed: of the draws.
    """

    mesh: Mesh
    support: SupportSet
    indices: np.ndarray
    recipe: Recipe
    seed: int

    def batch(self, step: int) -> Batch:
        """Return the batch of a step: each item once, before any comes again."""
        recipe, order = self.recipe, _order(len(self.indices), self.seed)
        chosen = self.indices[[order[step * recipe.batch + i] for i in range(recipe.batch)]]
        rng = np.random.default_rng([self.seed, 7, step])
        columns = np.sort(rng.permutation(len(self.support.timesteps))[: recipe.timesteps])
        noise = int(rng.integers(len(self.support.seeds)))
        return make_batch(
            self.mesh, self.support, chosen, noise, columns=columns, multiple=recipe.accumulate
        )


@cache
def _order(count: int, seed: int) -> Any:
    """Return an endless sequence of indices below `count`, shuffled anew in each pass."""
    import grain  # takes a second to import

    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
