"""The engine: how well captions fit pictures, as raw terms of one frozen forward pass.

Everything random is handed in. A *set* is some pictures and the captions that all of them are
compared with: the match matrix is one set, a benchmark of items is many small ones. A *group* is
one picture of a set with its captions. Per group and timestep the empty caption's row and whatever
precedes the first cross-attention are computed once; per call of the UNet each caption's keys and
values once. Calls have one fixed shape, the last ones filled up, so a pair's numbers don't depend
on its company, and no more rows per device than `device_memory` says. All runs on this host's
devices: hosts share items out, not calls. Terms end up in the host's memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.diffusion.device_memory import (
    Device,
    bytes_per_device,
    even_size,
    explain_out_of_memory,
    forward_rows,
)
from dsd_jax.diffusion.pipeline import EncodedCaptions, Model, without_pooled
from dsd_jax.distributed.sharding import in_mesh, shard_rows
from dsd_jax.errors import UserError
from dsd_jax.matching.forward import (
    ForwardConfig,
    OutputSpec,
    Terms,
    all_outputs,
    forward_terms,
    with_uncond,
)
from dsd_jax.prompts.prompt_params import by_layer


class Sets(NamedTuple):
    """Which captions the groups of S sets are compared with.

    texts: of V captions. rows: (S, J) int, the V that each set has; the groups of a set stand side
        by side, equally many of each.
    """

    texts: EncodedCaptions
    rows: np.ndarray

    def some(self, sets: np.ndarray, columns: np.ndarray) -> EncodedCaptions:
        """The texts of some captions of some sets: (S', J', ...)."""
        rows = self.rows[sets][:, columns]
        return self.texts.map(lambda x: x[rows])

    def divided(self, parts: int) -> "Sets":
        """The same, every set as so many with an equal part of its groups each."""
        return self._replace(rows=np.repeat(self.rows, parts, axis=0))


def one_set(texts: EncodedCaptions) -> Sets:
    """All captions for all groups."""
    return Sets(texts, np.arange(len(texts.states))[None])


# Told of progress, as a share of the whole.
ProgressFn = Callable[[float], object]
# (group numbers, timestep numbers) -> (groups, timesteps, h, w, channels)
Rows = Callable[[np.ndarray, np.ndarray], jax.Array]


def match_terms(
    model: Model,
    latents: jax.Array,
    captions: Sequence[str] | jax.Array | EncodedCaptions,
    noise: jax.Array,
    timesteps: Sequence[int] | jax.Array,
    prompts: Mapping[str, Any] | None = None,
    *,
    wanted: OutputSpec | None = None,
    chunk: int | None = None,
) -> Terms:
    """The terms of every picture with every caption at every timestep.

    Args:
        model: from `dsd_jax.load`.
        latents: (I, h, w, channels) or, one per timestep, (I, T, h, w, channels); already scaled.
        captions: strings, or their text states (C, L, K), or `Model.encode_captions` of them.
        noise: (T, h, w, channels), or (I, T, h, w, channels); added and to be predicted.
        timesteps: (T,) in [0, 1000).
        prompts: a prompts pytree (`prompt_params`); may be traced, so that `jax.grad` works.
        wanted: which terms, all by default.
        chunk: rows per device and call of the UNet instead of what its memory allows; changes time
            and memory, not numbers.

    Raises:
        UserError: shapes don't fit together, or a timestep is out of range.
    """
    texts = _encoded(model, captions)
    timesteps = np.asarray(timesteps, np.int32)
    latents, noise = jnp.asarray(latents), jnp.asarray(noise)
    _check(model, latents, noise, timesteps)
    if latents.ndim == 4:
        latents = latents[:, None]
    if noise.ndim == 4:
        noise = noise[None]

    def rows(array: jax.Array) -> Rows:
        return lambda groups, times: array[groups % array.shape[0]][:, times % array.shape[1]]

    groups, sets = len(latents), one_set(texts)
    return group_terms(
        model, rows(latents), rows(noise), groups, sets, timesteps, prompts, wanted, chunk
    )


def _encoded(
    model: Model, captions: Sequence[str] | jax.Array | EncodedCaptions
) -> EncodedCaptions:
    if isinstance(captions, EncodedCaptions):
        return captions
    if isinstance(captions[0], str):
        return model.encode_captions(captions)
    return without_pooled(jnp.asarray(captions))


def _check(model: Model, latents: jax.Array, noise: jax.Array, timesteps: np.ndarray) -> None:
    shape = model.latent_shape[-1:]
    for name, array in (("latents", latents), ("noise", noise)):
        if array.ndim not in (4, 5) or array.shape[-1:] != shape:
            raise UserError(
                f"{name} has shape {array.shape}; expected (.., h, w, {shape[0]}) with 4 or 5 dims."
            )
        if array.ndim == 5 and array.shape[1] != len(timesteps):
            raise UserError(
                f"{name} has {array.shape[1]} timesteps along axis 1 but there are "
                f"{len(timesteps)} timesteps."
            )
    if noise.ndim == 4 and len(noise) != len(timesteps):
        raise UserError(f"noise has {len(noise)} rows but there are {len(timesteps)} timesteps.")
    outside = timesteps[(timesteps < 0) | (timesteps >= model.schedule.steps)]
    if timesteps.ndim != 1 or outside.size or not timesteps.size:
        raise UserError(
            f"timesteps {timesteps.tolist()} should be a list of numbers from 0 to "
            f"{model.schedule.steps - 1}."
        )


def group_terms(
    model: Model,
    latents: Rows,
    noise: Rows,
    groups: int,
    sets: Sets,
    timesteps: np.ndarray,
    prompts: Mapping[str, Any] | None = None,
    wanted: OutputSpec | None = None,
    chunk: int | None = None,
    tick: ProgressFn = lambda share: None,
) -> Terms:
    """The terms of G groups with J captions each; devices' memory does not grow with G, T or J.

    Args:
        model: from `dsd_jax.load`.
        latents: scaled latents of given groups at given timestep numbers.
        noise: noise of given groups at given timestep numbers.
        groups: G.
        sets: of which each has G / S groups and J captions.
        timesteps: (T,) int32.
        prompts: a prompts pytree.
        wanted: which terms, all by default.
        chunk: rows per device and call of the UNet; by default what the devices' memory allows.
        tick: told of every call of the UNet, with the share of all of them that it is.

    Returns:
        Terms with G for I and J for C, in the host's memory unless prompts are traced.
    """
    wanted, mesh = wanted or all_outputs(model.unet), model.mesh
    rows = chunk or rows_per_call(model)
    sets = sets.divided(set_parts(groups, sets, rows, wanted.uncond))
    shape = sets.rows.shape
    plan = CallPlan.make(groups, *shape, len(timesteps), rows, wanted.uncond, mesh.size)
    empty = model.encode_captions([""]) if wanted.uncond else None
    net, learned = ForwardConfig.of(model, wanted), by_layer(prompts or {})

    def call(groups: np.ndarray, texts: EncodedCaptions, times: np.ndarray) -> tuple:
        tick(1 / plan.calls)
        pictures = shard_rows(mesh, (latents(groups, times), noise(groups, times)))
        steps = timesteps[times]
        with (
            in_mesh(mesh),
            explain_out_of_memory("a call of the UNet", "divide its weights by fsdp"),
        ):
            return forward_terms(net, model.params["unet"], learned, *pictures, steps, texts)

    def block(piece: np.ndarray, number: int) -> tuple:
        which, inside = plan.parts(piece)
        # The empty caption's row is computed with the first captions only.
        first = empty if number == 0 else None
        texts = shard_rows(mesh, _beside(sets.some(which, plan.captions[number]), first))
        return _join(1, [call(inside, texts, times) for times in plan.timesteps])

    parts = [
        _join(2, [block(piece, number) for number in range(len(plan.captions))])
        for piece in plan.pieces
    ]
    return _deal(*_join(0, parts), (groups, shape[1]), len(timesteps), wanted)


def _join(axis: int, parts: Sequence[tuple]) -> tuple:
    """Concatenate the results of several calls along groups (0), timesteps (1) or captions (2).

    On the host unless they are traced: they are small, and devices need not meet for it.
    """

    def join(*pieces: jax.Array) -> jax.Array | np.ndarray:
        if any(isinstance(piece, jax.core.Tracer) for piece in pieces):
            return jnp.concatenate(pieces, axis=axis)
        return np.concatenate(pieces, axis=axis)

    return jax.tree.map(join, *parts)


def _beside(texts: EncodedCaptions, empty: EncodedCaptions | None) -> EncodedCaptions:
    """The texts of some sets, (S, J, ...), with the empty caption's as the first of each."""
    if empty is None:
        return texts

    def join(first: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.broadcast_to(first, (len(x), *first.shape)), x], axis=1)

    return jax.tree.map(join, empty, texts)


def score_terms(
    model: Model,
    latents: Rows,
    noise: Rows,
    groups: int,
    sets: Sets,
    timesteps: np.ndarray,
    prompts: Mapping[str, Any] | None,
    wanted: OutputSpec,
    chunk: int | None = None,
    tick: ProgressFn = lambda share: None,
) -> Terms:
    """`group_terms` as scores read them: the empty caption's row is always the frozen model's.

    Prompts are learned for captions; what an empty caption predicts stays the yardstick that it
    is without them, and need not be computed anew for every set of prompts.
    """
    rest = (latents, noise, groups, sets, timesteps)
    if not wanted.uncond or not set(prompts or ()) & {"lora", "tokens"}:
        return group_terms(model, *rest, prompts, wanted, chunk, tick)
    terms = group_terms(model, *rest, prompts, wanted._replace(uncond=False), chunk, tick)
    return with_uncond(terms, uncond_terms(model, latents, noise, groups, timesteps, wanted))


def uncond_terms(
    model: Model, latents: Rows, noise: Rows, groups: int, timesteps: np.ndarray, wanted: OutputSpec
) -> Terms:
    """The frozen model's terms of the empty caption alone, for `with_uncond`."""
    empty, wanted = one_set(model.encode_captions([""])), wanted._replace(uncond=False, norms=())
    terms = group_terms(model, latents, noise, groups, empty, timesteps, wanted=wanted)
    lse = {layer: x[:, 0] for layer, x in terms.lse.items()}
    return Terms({}, lse, None, None if terms.error is None else terms.error[:, 0])


def _deal(
    lse: dict, error: Any, norms: dict, shape: tuple[int, int], times: int, wanted: OutputSpec
) -> Terms:
    """Cut the padding off (G, T, J, ...) and part the empty caption's column from the others."""
    groups, width = shape
    first = int(wanted.uncond)

    def caption_rows(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        return x[:groups, :times, first : first + width].swapaxes(1, 2)

    def uncond_rows(x: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
        return x[:groups, :times, 0]

    return Terms(
        {layer: caption_rows(x) for layer, x in lse.items()},
        {layer: uncond_rows(x) for layer, x in lse.items()} if wanted.uncond else {},
        caption_rows(error) if wanted.error else None,
        uncond_rows(error) if wanted.error and wanted.uncond else None,
        {name: caption_rows(x) for name, x in norms.items()},
    )


def rows_per_call(model: Model) -> int:
    """Return the rows of a call of the UNet without gradients, per device."""
    weights = bytes_per_device(model.params)
    itemsize = jnp.dtype(model.dtype).itemsize
    return forward_rows(Device.local(), model.unet, model.latent_shape, itemsize, weights)


def set_parts(groups: int, sets: Sets, rows: int, uncond: bool) -> int:
    """Return in how many parts each set is cut so that a call of `rows` rows takes a whole one."""
    count, width = sets.rows.shape
    share = groups // count
    if count == 1 or share < 2:
        return 1
    most = max(1, rows // (min(width, max(1, rows - uncond)) + uncond))
    return next(
        parts for parts in range(1, share + 1) if share % parts == 0 and share <= parts * most
    )


class CallPlan(NamedTuple):
    """Which sets, captions and timesteps share a call; each list has pieces of one size.

    Where there is one set its groups are the pieces; otherwise calls take whole sets.
    """

    pieces: list[np.ndarray]
    share: int  # groups of a set, or 0 where there is one set alone
    captions: list[np.ndarray]
    timesteps: list[np.ndarray]

    @property
    def calls(self) -> int:
        """How many calls it takes."""
        return len(self.pieces) * len(self.captions) * len(self.timesteps)

    @classmethod
    def make(
        cls, groups: int, sets: int, width: int, times: int, rows: int, uncond: bool, devices: int
    ) -> "CallPlan":
        """Calls of at most `rows` rows per device, or of one group's smallest call.

        Groups are dealt evenly to the devices; fewer than these are computed by each of them.
        """
        captions = even_size(width, rows - uncond)
        share = groups // sets if sets > 1 else 1
        count = groups // share
        steps = even_size(times, rows // ((captions + uncond) * share))
        together = max(1, rows // ((captions + uncond) * share * steps))
        spread = devices if count >= devices else 1
        size = min(together * spread, count + -count % spread)
        whole = padded_ranges(count, size)
        return cls(
            whole, share * (sets > 1), padded_ranges(width, captions), padded_ranges(times, steps)
        )

    def parts(self, piece: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The sets and the groups of a piece."""
        if not self.share:
            return np.zeros(1, int), piece
        return piece, (piece[:, None] * self.share + np.arange(self.share)).reshape(-1)


def even_ranges(count: int, most: int) -> list[np.ndarray]:
    """0..count-1 in as few pieces of one size as that takes, none of more than `most` numbers."""
    return padded_ranges(count, -(-count // -(-count // most)))


def padded_ranges(count: int, size: int) -> list[np.ndarray]:
    """0..count-1 in pieces of `size`, the last filled up with the last number."""
    numbers = np.minimum(np.arange(count + -count % size), count - 1)
    return np.split(numbers, len(numbers) // size)
