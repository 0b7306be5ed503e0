"""Which few shots a training step sees, and under what noise: functions of (seed, step) alone.

So a resumed run sees what an uninterrupted one does, and the number of hosts and devices changes
nothing. Every host makes its part of the global batch.
"""

from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.distributed.sharding import ROWS, WHOLE, replicate, shard_rows
from dsd_jax.few_shot.support_set import Recipe, Shots, take_timesteps
from dsd_jax.matching.forward import uncond_part


class Rows(NamedTuple):
    """What a batch has of each of its B items; leading axes are split over all devices.

    latents: (B, P, h, w, channels). texts: (B, J, ...). numbers: (B,), what noise is keyed by.
    share: (B,) float32, of the mean over the batch: 1 / B, or 0 for what only fills it up.
    lse_uncond: {layer: (B, P, T', N)} and error_uncond: (B, P, T'), of the frozen model, where
        they are read.
    """

    latents: jax.Array
    texts: EncodedCaptions
    numbers: jax.Array
    share: jax.Array
    lse_uncond: dict[str, jax.Array]
    error_uncond: jax.Array | None


class Batch(NamedTuple):
    """B items at T' of the T timesteps, all under the noise of one seed.

    columns: (T',) which of the T timesteps. timesteps: (T',). seed: ().
    """

    rows: Rows
    columns: jax.Array
    timesteps: jax.Array
    seed: jax.Array


# Where a batch's arrays live: a prefix of its tree.
PLACES = Batch(ROWS, WHOLE, WHOLE, WHOLE)


def draw(
    mesh: Mesh,
    shots: Shots,
    chosen: np.ndarray,
    noise: int,
    columns: np.ndarray | None = None,
    multiple: int = 1,
) -> Batch:
    """The items `chosen` under noise number `noise`, at all timesteps or those in `columns`.

    The batch is filled up so that every device of `mesh` gets a multiple of `multiple` items.
    """
    columns = np.arange(len(shots.timesteps)) if columns is None else columns
    missing = -len(chosen) % (mesh.size * multiple)
    filled = np.concatenate([chosen, np.repeat(chosen[:1], missing)])
    share = np.where(np.arange(len(filled)) < len(chosen), np.float32(1 / len(chosen)), 0)
    mine = np.split(np.arange(len(filled)), jax.process_count())[jax.process_index()]
    some = shots._replace(terms=uncond_part(shots.terms)).take(filled[mine])
    frozen = take_timesteps(some.terms, noise * len(shots.timesteps) + columns)
    rows = Rows(
        some.items.latents[some.items.images],
        some.items.texts.map(lambda x: x[some.items.captions]),
        some.items.indices,
        share[mine].astype(np.float32),
        {layer: _by_item(x, some) for layer, x in frozen.lse_uncond.items()},
        None if frozen.error_uncond is None else _by_item(frozen.error_uncond, some),
    )
    alike = (columns, shots.timesteps[columns], np.asarray(shots.seeds[noise]))
    return Batch(shard_rows(mesh, rows), *replicate(mesh, alike))


def _by_item(x: Any, shots: Shots) -> np.ndarray:
    """(B * P, ...) -> (B, P, ...)."""
    return np.reshape(x, (*shots.items.images.shape, *x.shape[1:]))


def training_batch(
    mesh: Mesh, shots: Shots, rows: np.ndarray, recipe: Recipe, seed: int, step: int
) -> Batch:
    """The batch of a step from the items `rows`: each of them once, before any comes again."""
    order = _order(len(rows), seed)
    chosen = rows[[order[step * recipe.batch + i] for i in range(recipe.batch)]]
    rng = np.random.default_rng([seed, 7, step])
    columns = np.sort(rng.permutation(len(shots.timesteps))[: recipe.timesteps])
    noise = int(rng.integers(len(shots.seeds)))
    return draw(mesh, shots, chosen, noise, columns, recipe.accumulate)


@cache
def _order(count: int, seed: int) -> Any:
    """An endless sequence of numbers below `count`, shuffled anew in each pass."""
    import grain  # takes a second to import

    return grain.MapDataset.range(count).seed(seed).shuffle().repeat()
