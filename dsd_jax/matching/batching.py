"""Outputs of the UNet for many pairs, in calls of one shape that fit a device's memory.

The data flow:

    Pairs       n items; each has P images, every one of which is paired with the item's J captions.
                A match matrix is one item; a benchmark has many small ones.
    plan_calls  cuts images, captions and timesteps into index arrays of one size each, the last
                ones padded, with no more rows per call than `device_memory` allows.
    UNetInputs  the latents, noise and text states at some of these indices.
    Terms       the outputs of all calls, joined and without the padding, in the host's memory.

The empty caption and the layers before the first cross-attention are computed once per image and
timestep, keys and values once per caption and call. A pair's outputs do not depend on what else is
in the batch. Everything runs on this host's devices: hosts divide items, not calls.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from dsd_jax.diffusion import noising
from dsd_jax.diffusion.device_memory import (
    Device,
    bytes_per_device,
    explain_out_of_memory,
    forward_rows,
)
from dsd_jax.diffusion.pipeline import Array, EncodedCaptions, Model, without_pooled
from dsd_jax.distributed.sharding import in_mesh, shard_rows
from dsd_jax.errors import UserError
from dsd_jax.io.progress import UNSEEN, Work
from dsd_jax.matching.call_plan import PairCounts, plan_calls
from dsd_jax.matching.forward import (
    ForwardConfig,
    OutputSpec,
    Terms,
    UNetInputs,
    all_outputs,
    forward_terms,
    with_uncond,
)
from dsd_jax.prompts.prompt_files import read_prompts
from dsd_jax.prompts.prompt_metadata import GivenPrompts
from dsd_jax.prompts.prompt_params import by_layer

_CALL = "a call of the UNet", "divide its weights by fsdp"


class NoiseKeys(NamedTuple):
    """Keys of the noise of every image and timestep, drawn where it is used (`keyed_noise`).

    Attributes:
        seeds: (T,) int.
        images: (n * P,) int in [0, 2**32); images with the same number have the same noise.
    """

    seeds: np.ndarray
    images: np.ndarray


class Pairs(NamedTuple):
    """The pairs of n items with P images and J captions each, at T timesteps.

    Attributes:
        latents: (U, h, w, D) or, one per timestep, (U, T, h, w, D); scaled.
        images: (n, P) int, rows of `latents`.
        texts: text states of V captions.
        captions: (n, J) int, rows of `texts`.
        noise: keys to draw it from, or the noise itself, (n * P or 1, T, h, w, D).
        timesteps: (T,) int32.
    """

    latents: Array
    images: np.ndarray
    texts: EncodedCaptions
    captions: np.ndarray
    noise: NoiseKeys | Array
    timesteps: np.ndarray

    def counts(self, uncond: bool) -> PairCounts:
        """Return the sizes of the axes; `uncond`: whether the empty caption is added."""
        items, images = self.images.shape
        return PairCounts(items, images, self.captions.shape[1], len(self.timesteps), uncond)

    def at_timesteps(self, times: np.ndarray) -> "Pairs":
        """Return the same pairs at some of the timesteps, (T',) indices."""
        if isinstance(self.noise, NoiseKeys):
            noise = self.noise._replace(seeds=self.noise.seeds[times])
        else:
            noise = self.noise[:, times]
        latents = self.latents[:, times] if self.latents.ndim == 5 else self.latents
        return self._replace(latents=latents, noise=noise, timesteps=self.timesteps[times])


def match_terms(
    model: Model,
    latents: Array,
    captions: Sequence[str] | Array | EncodedCaptions,
    noise: Array,
    timesteps: Sequence[int] | Array,
    *,
    prompts: GivenPrompts = None,
    outputs: OutputSpec | None = None,
    chunk: int | None = None,
    prompt_empty_caption: bool = False,
) -> Terms:
    """Return the UNet's outputs for every image with every caption at every timestep.

    Args:
        model: from `dsd_jax.load`.
        latents: (I, h, w, D) or, one per timestep, (I, T, h, w, D); already scaled.
        captions: strings, or their text states (C, L, D), or `Model.encode_captions` of them.
        noise: (T, h, w, D), or (I, T, h, w, D); added and to be predicted.
        timesteps: (T,) in [0, 1000).
        prompts: what `learn` returns, the folder that it or `train` wrote, or a pytree
            (`prompt_params`); the latter may be traced, so that `jax.grad` works.
        outputs: which outputs to compute; all by default.
        chunk: rows per device and call of the UNet instead of what its memory allows; changes time
            and memory, not numbers.
        prompt_empty_caption: see `pair_terms`.

    Raises:
        UserError: shapes don't fit together, or a timestep is out of range.
    """
    texts = _encoded(model, captions)
    timesteps = np.asarray(timesteps, np.int32)
    latents, noise = jnp.asarray(latents), jnp.asarray(noise)
    _check(model, latents, noise, timesteps)
    every_image, every_caption = np.arange(len(latents))[None], np.arange(len(texts.states))[None]
    noise = noise if noise.ndim == 5 else noise[None]
    pairs = Pairs(latents, every_image, texts, every_caption, noise, timesteps)
    return pair_terms(
        model,
        pairs,
        outputs,
        prompts=read_prompts(prompts, model.unet),
        chunk=chunk,
        prompt_empty_caption=prompt_empty_caption,
    )


def _encoded(model: Model, captions: Sequence[str] | Array | EncodedCaptions) -> EncodedCaptions:
    if isinstance(captions, EncodedCaptions):
        return captions
    if isinstance(captions, jax.Array | np.ndarray):
        return without_pooled(jnp.asarray(captions))
    return model.encode_captions(captions)


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
    if noise.ndim == 5 and len(noise) not in (1, len(latents)):
        raise UserError(f"noise is of {len(noise)} images but there are {len(latents)} latents.")
    outside = timesteps[(timesteps < 0) | (timesteps >= model.schedule.num_timesteps)]
    if timesteps.ndim != 1 or outside.size or not timesteps.size:
        raise UserError(
            f"timesteps {timesteps.tolist()} should be a list of numbers from 0 to "
            f"{model.schedule.num_timesteps - 1}."
        )


def pair_terms(
    model: Model,
    pairs: Pairs,
    outputs: OutputSpec | None = None,
    *,
    prompts: Mapping[str, Any] | None = None,
    chunk: int | None = None,
    work: Work = UNSEEN,
    prompt_empty_caption: bool = False,
) -> Terms:
    """Return the UNet's outputs for pairs; memory on devices does not grow with n, P, T or J.

    This is where it is decided what prompts do to the empty caption: nothing. It stays the frozen
    model's, so that it is the same reference with and without prompts, and need not be computed
    anew for every set of them. The authors' training code does apply them, which
    `prompt_empty_caption` reproduces.

    Args:
        model: from `dsd_jax.load`.
        pairs: images, captions, noise and timesteps.
        outputs: which outputs to compute; all by default.
        prompts: a prompts pytree; may be traced.
        chunk: rows per device and call of the UNet; by default what the devices' memory allows.
        work: that these pairs are; counted as calls of the UNet are finished.
        prompt_empty_caption: whether prompts apply to the empty caption too.

    Returns:
        Terms with I = n * P, the images of an item side by side, and C = J; in the host's memory
        unless prompts are traced.
    """
    outputs = outputs or all_outputs(model.unet)
    changed = set(prompts or ()) & {"lora", "tokens"}
    if not outputs.uncond or not changed or prompt_empty_caption:
        return _run_calls(model, pairs, outputs, prompts, chunk=chunk, work=work)
    captions_only = outputs._replace(uncond=False)
    terms = _run_calls(model, pairs, captions_only, prompts, chunk=chunk, work=work)
    return with_uncond(terms, _frozen_empty_caption(model, pairs, outputs, chunk))


def _frozen_empty_caption(
    model: Model, pairs: Pairs, outputs: OutputSpec, chunk: int | None
) -> Terms:
    """Return the frozen model's outputs for the empty caption, for `with_uncond`."""
    pairs = pairs._replace(
        images=pairs.images.reshape(1, -1),
        texts=model.encode_captions([""]),
        captions=np.zeros((1, 1), int),
    )
    terms = _run_calls(model, pairs, outputs._replace(uncond=False, norms=()), None, chunk=chunk)
    lse = {layer: x[:, 0] for layer, x in terms.lse.items()}
    return Terms({}, lse, None, None if terms.error is None else terms.error[:, 0])


def _run_calls(
    model: Model,
    pairs: Pairs,
    outputs: OutputSpec,
    prompts: Mapping[str, Any] | None,
    *,
    chunk: int | None,
    work: Work = UNSEEN,
) -> Terms:
    """Plan and run all calls of the UNet, under `prompts` for every caption, "" included."""
    counts = pairs.counts(outputs.uncond)
    plan = plan_calls(counts, chunk or rows_per_call(model), model.mesh.size)
    config, adapters = ForwardConfig.of(model, outputs), by_layer(prompts or {})
    with work.waiting_for("the text encoder"):
        empty = model.encode_captions([""]) if outputs.uncond else None
    blocks, one_call = [], work.part(1 / plan.calls)
    for images, items in zip(plan.images, plan.items, strict=True):
        columns = []
        for captions in plan.captions:
            # The empty caption's row is computed with the first captions only.
            texts = _texts(pairs, items, captions, None if columns else empty)
            texts, calls = shard_rows(model.mesh, texts), []
            for times in plan.timesteps:
                with work.waiting_for("the noise"):
                    arrays = _latents_and_noise(model, pairs, images, times)
                inputs = UNetInputs(*arrays, pairs.timesteps[times], texts)
                rows = len(images) * len(times) * texts.states.shape[1]
                with in_mesh(model.mesh), explain_out_of_memory(*_CALL):
                    with work.waiting_for(f"the UNet for {rows} rows"):
                        calls.append(forward_terms(config, model.params["unet"], adapters, inputs))
                    if len(calls) > 1:
                        one_call.finish(calls[-2])  # while the device works on the last one
            columns.append(_join(calls, axis=1))
            one_call.advance(1.0)
        blocks.append(_join(columns, axis=2))
    return _unpad(_join(blocks, axis=0), counts)


def _texts(
    pairs: Pairs, items: np.ndarray, captions: np.ndarray, empty: EncodedCaptions | None
) -> EncodedCaptions:
    """Return the text states of some captions of some items, (n, J, ...), after those of ""."""
    rows = pairs.captions[items][:, captions]
    texts = pairs.texts.map(lambda x: x[rows])
    if empty is None:
        return texts

    def join(first: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.concatenate([jnp.broadcast_to(first, (len(x), *first.shape)), x], axis=1)

    return jax.tree.map(join, empty, texts)


def _latents_and_noise(
    model: Model, pairs: Pairs, images: np.ndarray, times: np.ndarray
) -> tuple[Array, Array]:
    """Return the latents, (B, T or 1, h, w, D), and noise, (B, T, h, w, D), of a call."""
    latents, noise = pairs.latents[pairs.images.reshape(-1)[images]], pairs.noise
    latents = latents[:, times] if latents.ndim == 5 else latents[:, None]
    if isinstance(noise, NoiseKeys):
        seeds, timesteps = noise.seeds[times], pairs.timesteps[times]
        keys = shard_rows(model.mesh, noise.images[images])  # drawn on the device that needs it
        noise = noising.keyed_noise(seeds, keys, timesteps, model.latent_shape)
    else:
        noise = noise[images if len(noise) > 1 else np.zeros_like(images)][:, times]
    return shard_rows(model.mesh, (latents, noise))


def _join(parts: Sequence[tuple], axis: int) -> tuple:
    """Concatenate the outputs of calls along images (0), timesteps (1) or captions (2).

    On the host unless they are traced: they are small, and devices need not meet for it.
    """

    def join(*pieces: jax.Array) -> Array:
        if any(isinstance(piece, Tracer) for piece in pieces):
            return jnp.concatenate(pieces, axis=axis)
        return np.concatenate(pieces, axis=axis)

    return jax.tree.map(join, *parts)


def _unpad(joined: tuple, counts: PairCounts) -> Terms:
    """Remove the padding of (I, T, J, ...) outputs and split off the empty caption's column."""
    lse, error, norms = joined
    images, first = counts.items * counts.images, int(counts.uncond)

    def of_captions(x: Array) -> Array:
        return x[:images, : counts.timesteps, first : first + counts.captions].swapaxes(1, 2)

    def of_empty(x: Array) -> Array:
        return x[:images, : counts.timesteps, 0]

    return Terms(
        {layer: of_captions(x) for layer, x in lse.items()},
        {layer: of_empty(x) for layer, x in lse.items()} if counts.uncond else {},
        None if error is None else of_captions(error),
        of_empty(error) if error is not None and counts.uncond else None,
        {name: of_captions(x) for name, x in norms.items()},
    )


def rows_per_call(model: Model) -> int:
    """Return the rows of a call of the UNet without gradients, per device."""
    params, itemsize = bytes_per_device(model.params), jnp.dtype(model.dtype).itemsize
    device, shape = Device.local(), model.latent_shape
    return forward_rows(device, model.unet, shape, itemsize=itemsize, params=params)
