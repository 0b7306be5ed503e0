"""The engine: how well captions fit pictures, as raw terms of one frozen forward pass.

Everything random is handed in. A *group* is one picture with the captions it is compared with;
the match matrix is one group per picture with all captions, a benchmark of items is many groups
with few. Per group and timestep the empty caption's row and whatever precedes the first
cross-attention are computed once; per call of the UNet each caption's keys and values once. Calls
have one fixed shape, the last ones filled up, so a pair's numbers don't depend on its company.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from dsd_jax import hosts
from dsd_jax.errors import UserError
from dsd_jax.model import Model
from dsd_jax.prompts import merge
from dsd_jax.sharding import data_mesh, fetch, replicate, shard_rows
from dsd_jax.terms import Network, Terms, Wanted, everything, forward_terms, with_uncond

# Latent positions a call of the UNet works on: what fits caches on CPU, what fills an accelerator.
_POSITIONS = {"cpu": 8_192}
_POSITIONS_ELSEWHERE = 65_536

# (group numbers, timestep numbers) -> (groups, timesteps, h, w, channels)
Rows = Callable[[np.ndarray, np.ndarray], jax.Array]


def match_terms(
    model: Model,
    latents: jax.Array,
    captions: Sequence[str] | jax.Array,
    noise: jax.Array,
    timesteps: Sequence[int] | jax.Array,
    prompts: Mapping[str, Any] | None = None,
    *,
    wanted: Wanted | None = None,
    chunk: int | None = None,
) -> Terms:
    """The terms of every picture with every caption at every timestep.

    Args:
        model: from `dsd_jax.load`.
        latents: (I, h, w, channels) or, one per timestep, (I, T, h, w, channels); already scaled.
        captions: strings, or their text states (C, L, K).
        noise: (T, h, w, channels), or (I, T, h, w, channels); added and to be predicted.
        timesteps: (T,) in [0, 1000).
        prompts: a prompts pytree (`dsd_jax.prompts`); may be traced, so that `jax.grad` works.
        wanted: which terms, all by default.
        chunk: rows per call of the UNet; changes time and memory, not numbers.

    Raises:
        UserError: shapes don't fit together, or a timestep is out of range.
    """
    states = model.encode_texts(captions) if isinstance(captions[0], str) else jnp.asarray(captions)
    timesteps = np.asarray(timesteps, np.int32)
    latents, noise = jnp.asarray(latents), jnp.asarray(noise)
    _check(model, latents, noise, timesteps)
    if latents.ndim == 4:
        latents = latents[:, None]
    if noise.ndim == 4:
        noise = noise[None]

    def rows(array: jax.Array) -> Rows:
        return lambda groups, times: array[groups % array.shape[0]][:, times % array.shape[1]]

    pairs = np.broadcast_to(np.arange(len(states)), (len(latents), len(states)))
    return group_terms(
        model, rows(latents), rows(noise), states, pairs, timesteps, prompts, wanted, chunk
    )


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
    states: jax.Array,
    captions: np.ndarray,
    timesteps: np.ndarray,
    prompts: Mapping[str, Any] | None = None,
    wanted: Wanted | None = None,
    chunk: int | None = None,
    progress: str | None = None,
) -> Terms:
    """The terms of G groups of J captions each; memory does not grow with T or J.

    Args:
        model: from `dsd_jax.load`.
        latents: scaled latents of given groups at given timestep numbers.
        noise: noise of given groups at given timestep numbers.
        states: (S, L, K) text states.
        captions: (G, J) int, each group's captions as rows of `states`.
        timesteps: (T,) int32.
        prompts: a prompts pytree.
        wanted: which terms, all by default.
        chunk: rows per call of the UNet.
        progress: what to show before a progress bar; none without it.

    Returns:
        Terms with G for I and J for C.
    """
    wanted, prompts, mesh = wanted or everything(model.unet), prompts or {}, data_mesh()
    rows = (chunk or _default_chunk(model)) * mesh.size
    plan = _Plan.make(captions.shape, len(timesteps), rows, wanted.uncond, mesh.size)
    params = replicate(mesh, merge(model.params["unet"], prompts))
    states = replicate(mesh, states)
    empty = replicate(mesh, model.encode_texts([""])) if wanted.uncond else None
    net = Network.of(model, wanted)
    hidden = progress is None or not hosts.is_main()
    bar = tqdm(total=plan.calls, desc=progress, unit="call", disable=hidden)

    def call(groups: np.ndarray, texts: tuple, times: np.ndarray) -> tuple:
        bar.update()
        pictures = shard_rows(mesh, (latents(groups, times), noise(groups, times)))
        tokens = prompts.get("tokens", {})
        return forward_terms(net, params, tokens, *pictures, timesteps[times], *texts)

    def block(groups: np.ndarray, number: int) -> tuple:
        # The empty caption's row is computed with the first captions only.
        first = empty if number == 0 else None
        here = captions[groups][:, plan.captions[number]]
        texts = _texts(states, here, first)
        texts = texts[0], shard_rows(mesh, texts[1])
        return _join(1, [call(groups, texts, times) for times in plan.timesteps])

    parts = [
        _join(2, [block(groups, number) for number in range(len(plan.captions))])
        for groups in plan.groups
    ]
    bar.close()
    return _deal(*_join(0, parts), captions.shape, len(timesteps), wanted)


def _join(axis: int, parts: Sequence[tuple]) -> tuple:
    """Concatenate the results of several calls along groups (0), timesteps (1) or captions (2).

    On the host unless they are traced: they are small, and devices need not meet for it.
    """

    def join(*pieces: jax.Array) -> jax.Array | np.ndarray:
        if any(isinstance(piece, jax.core.Tracer) for piece in pieces):
            return jnp.concatenate(pieces, axis=axis)
        return np.concatenate([fetch(piece) for piece in pieces], axis=axis)

    return jax.tree.map(join, *parts)


def _texts(
    states: jax.Array, captions: np.ndarray, empty: jax.Array | None
) -> tuple[jax.Array, np.ndarray]:
    """Each caption's states once, and (G, J) int32 into them; `empty` becomes the first column.

    There are always G * J states, the last ones repeats, so that all calls have one shape.
    """
    here, index = np.unique(captions, return_inverse=True)
    here = np.concatenate([here, np.repeat(here[:1], index.size - here.size)])
    some, index = states[here], index.reshape(captions.shape).astype(np.int32)
    if empty is None:
        return some, index
    first = np.zeros((len(index), 1), np.int32)
    return jnp.concatenate([empty, some]), np.concatenate([first, index + 1], axis=1)


def score_terms(
    model: Model,
    latents: Rows,
    noise: Rows,
    states: jax.Array,
    captions: np.ndarray,
    timesteps: np.ndarray,
    prompts: Mapping[str, Any] | None,
    wanted: Wanted,
    chunk: int | None = None,
    progress: str | None = None,
) -> Terms:
    """`group_terms` as scores read them: the empty caption's row is always the frozen model's.

    Prompts are learned for captions; what an empty caption predicts stays the yardstick that it
    is without them, and need not be computed anew for every set of prompts.
    """
    rest = (latents, noise, states, captions, timesteps)
    if not wanted.uncond or not set(prompts or ()) & {"lora", "tokens"}:
        return group_terms(model, *rest, prompts, wanted, chunk, progress)
    terms = group_terms(model, *rest, prompts, wanted._replace(uncond=False), chunk, progress)
    return with_uncond(terms, uncond_terms(model, latents, noise, timesteps, len(captions), wanted))


def uncond_terms(
    model: Model, latents: Rows, noise: Rows, timesteps: np.ndarray, groups: int, wanted: Wanted
) -> Terms:
    """The frozen model's terms of the empty caption alone, for `with_uncond`."""
    empty = model.encode_texts([""])
    none = np.zeros((groups, 1), int)
    terms = group_terms(
        model, latents, noise, empty, none, timesteps, wanted=wanted._replace(uncond=False)
    )
    lse = {layer: x[:, 0] for layer, x in terms.lse.items()}
    return Terms({}, lse, None, None if terms.error is None else terms.error[:, 0])


def _deal(lse: dict, error: Any, shape: tuple[int, int], times: int, wanted: Wanted) -> Terms:
    """Cut the padding off (G, T, J, ...) and part the empty caption's column from the others."""
    groups, width = shape
    first = int(wanted.uncond)

    def caption_rows(x: jax.Array) -> jax.Array:
        return jnp.asarray(x[:groups, :times, first : first + width].swapaxes(1, 2))

    def uncond_rows(x: jax.Array) -> jax.Array:
        return jnp.asarray(x[:groups, :times, 0])

    return Terms(
        {layer: caption_rows(x) for layer, x in lse.items()},
        {layer: uncond_rows(x) for layer, x in lse.items()} if wanted.uncond else {},
        caption_rows(error) if wanted.error else None,
        uncond_rows(error) if wanted.error and wanted.uncond else None,
    )


def _default_chunk(model: Model) -> int:
    h, w, _ = model.latent_shape
    positions = _POSITIONS.get(jax.default_backend(), _POSITIONS_ELSEWHERE)
    return max(2, positions // (h * w))


class _Plan(NamedTuple):
    """Which groups, captions and timesteps share a call; each list has pieces of one size."""

    groups: list[np.ndarray]
    captions: list[np.ndarray]
    timesteps: list[np.ndarray]

    @property
    def calls(self) -> int:
        return len(self.groups) * len(self.captions) * len(self.timesteps)

    @classmethod
    def make(
        cls, shape: tuple[int, int], times: int, rows: int, uncond: bool, devices: int
    ) -> "_Plan":
        """Calls of about `rows` rows, their groups dealt evenly to the devices."""
        groups, width = shape
        captions = min(width, max(1, rows - uncond))
        steps = min(times, max(1, rows // (captions + uncond)))
        together = min(groups, max(1, rows // ((captions + uncond) * steps)))
        together = -(-together // devices) * devices if groups >= devices else together
        return cls(_pieces(groups, together), _pieces(width, captions), _pieces(times, steps))


def _pieces(count: int, size: int) -> list[np.ndarray]:
    """0..count-1 in pieces of `size`, the last filled up with the last number."""
    numbers = np.minimum(np.arange(count + -count % size), count - 1)
    return np.split(numbers, len(numbers) // size)
