"""The calls of a run that take no gradients, with shapes for arguments: encoders and the UNet."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from dsd_jax.clip import fine_tuning_step as clip_steps
from dsd_jax.clip.clip_model import Normalizer
from dsd_jax.config.recipes import KINDS
from dsd_jax.diffusion.device_memory import (
    TEXT_ROWS,
    Device,
    bytes_per_device,
    forward_rows,
    image_rows,
)
from dsd_jax.diffusion.pipeline import EncodedCaptions, text_states, vae_posterior
from dsd_jax.distributed.sharding import ROWS, WHOLE, spec_of
from dsd_jax.matching.call_plan import PairCounts, plan_calls
from dsd_jax.matching.forward import ForwardConfig, OutputSpec, UNetInputs, forward_terms
from dsd_jax.models import clip, text_encoder, vae
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.models.params import flatten, unflatten
from dsd_jax.models.unet import abstract_params
from dsd_jax.planning.plan_job import Job
from dsd_jax.prompts.prompt_params import by_layer
from dsd_jax.training.few_shot_fit import adamw

POSITIONS = 77  # of a caption


class Program(NamedTuple):
    """A jitted function with shapes for arguments.

    Attributes:
        function: jitted.
        arguments: arrays as ShapeDtypeStructs, static arguments as they are.
        weights: the frozen weights among the arguments.
        size: what a device computes in a call, in words, such as "16 rows".
        pairs: (picture, caption, timestep)s that all devices together score in a call; of
            encoders pictures or captions.
        sent: bytes that a device takes part in sending in a call, whole arrays counted once.
    """

    function: Callable
    arguments: tuple
    weights: Any
    size: str
    pairs: int
    sent: int


def unet_call(
    job: Job,
    mesh: Mesh | AbstractMesh,
    device: Device,
    wanted: OutputSpec,
    times: int,
    *,
    prompts: Any = None,
) -> Program:
    """Return the call in which many items are scored at `times` timesteps.

    Args:
        job: what is planned.
        mesh: of all devices.
        device: whose memory says how many rows a call has.
        wanted: the terms.
        times: timesteps of each item, all noises together.
        prompts: a prompts pytree of ShapeDtypeStructs.
    """
    itemsize, resident = jnp.dtype(job.dtype).itemsize, bytes_per_device(all_weights(job, mesh))
    rows = forward_rows(device, job.unet, job.latent, itemsize=itemsize, params=resident)
    items = 4 * mesh.size * rows  # more than a call takes
    counts = PairCounts(items, job.pictures, job.captions, times, wanted.uncond)
    plan = plan_calls(counts, rows, mesh.size)
    together, width = len(plan.items[0]), len(plan.captions[0]) + wanted.uncond
    times, groups = len(plan.timesteps[0]), len(plan.images[0])

    def inputs(count: int, *shape: int) -> jax.ShapeDtypeStruct:
        place = NamedSharding(mesh, ROWS)
        return jax.ShapeDtypeStruct((count, *shape), jnp.float32, sharding=place)

    texts = EncodedCaptions(
        inputs(together, width, POSITIONS, job.unet.cross_attention_dim),
        inputs(together, width, job.unet.pooled_dim),
    )
    steps = jax.ShapeDtypeStruct((times,), jnp.int32, sharding=NamedSharding(mesh, WHOLE))
    latents, noise = (inputs(groups, n, *job.latent) for n in (1, times))
    learned = by_layer(whole(mesh, prompts)) if prompts else {}
    params = place(job, mesh, abstract_params(job.unet))
    unet_inputs = UNetInputs(latents, noise, steps, texts)
    arguments = (network(job, wanted), params, learned, unet_inputs)
    size = f"{groups * times * width // mesh.size} rows"
    pairs = groups * times * len(plan.captions[0])
    return Program(forward_terms, arguments, params, size, pairs, gathered(job, params))


def image_call(job: Job, mesh: Mesh | AbstractMesh) -> Program:
    """Return the call in which the VAE encodes pictures."""
    count, side = image_rows(job.image_size), job.image_size
    shape = (count * mesh.size, side, side, 3)
    pixels = jax.ShapeDtypeStruct(shape, jnp.uint8, sharding=NamedSharding(mesh, ROWS))
    params = place(job, mesh, vae.abstract_params(job.vae))
    overflows = job.vae.force_upcast and job.dtype == jnp.float16
    dtype = jnp.dtype(jnp.float32 if overflows else job.dtype)
    arguments = (job.vae, dtype, params, pixels)
    size, sent = words(count, "picture"), gathered(job, params)
    return Program(vae_posterior, arguments, params, size, shape[0], sent)


def text_call(job: Job, mesh: Mesh | AbstractMesh) -> Program:
    """Return the call in which the largest text encoder encodes captions."""
    config = max(job.texts, key=lambda one: one.hidden_size)
    shape = (TEXT_ROWS * mesh.size, POSITIONS)
    ids = jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, ROWS))
    params = place(job, mesh, text_encoder.abstract_params(config))
    arguments = (config, len(job.texts) > 1, jnp.dtype(job.dtype), params, ids)
    return Program(
        text_states, arguments, params, words(TEXT_ROWS, "caption"), shape[0], gathered(job, params)
    )


def tuning_step(job: Job, mesh: Mesh | AbstractMesh) -> Program:
    """Return the step in which a CLIP is fine-tuned."""
    params = place(job, mesh, clip.abstract_params(job.clip))
    params["logit_scale"] = _as(params["logit_scale"], jnp.float32)
    masters = {
        name: jax.tree.map(lambda x: _as(x, jnp.float32), params[name])
        for name in KINDS[job.tune.kind]
    }
    moments = jax.eval_shape(adamw(job.tune).init, masters)
    items, side = job.tune.batch, job.clip.vision.image_size
    place_rows = NamedSharding(mesh, ROWS if items % mesh.size == 0 else WHOLE)
    batch = clip_steps.ItemBatch(
        jax.ShapeDtypeStruct((items, job.pictures, side, side, 3), jnp.uint8, sharding=place_rows),
        jax.ShapeDtypeStruct((items, job.captions, POSITIONS), jnp.int32, sharding=place_rows),
    )
    spread = jax.ShapeDtypeStruct((), jnp.float32, sharding=NamedSharding(mesh, WHOLE))
    inputs = clip_steps.StepInputs(params, batch, spread)
    arguments = (masters, _alike(mesh, moments, masters), inputs)
    here = items // mesh.size if items % mesh.size == 0 else items
    dtype, divided = jnp.dtype(job.dtype), mesh.size > 1 and items % mesh.size == 0
    static = clip_steps.Program(job.clip, dtype, Normalizer(), mesh, divided)
    function, pairs = clip_steps.update_function(static, job.tune), job.pictures * job.captions
    sent = 2 * gathered(job, params) + whole_bytes(masters)
    return Program(function, arguments, params, words(here, "item"), items * pairs, sent)


def network(job: Job, wanted: OutputSpec, remat: str = "nothing") -> ForwardConfig:
    """Return what is static of a call of the UNet."""
    blocks = BlockPolicy(remat, gather=job.fsdp > 1)
    return ForwardConfig(
        job.unet, job.schedule, jnp.dtype(job.dtype), wanted, blocks, job.image_size
    )


def place(job: Job, mesh: Mesh | AbstractMesh, params: Any) -> Any:
    """Return the shapes of weights in the run's dtype, placed as they are when they are loaded."""
    leaves = {
        path: jax.ShapeDtypeStruct(
            leaf.shape,
            job.dtype,
            sharding=NamedSharding(mesh, spec_of("/".join(path), leaf.shape, mesh)),
        )
        for path, leaf in flatten(params).items()
    }
    return unflatten(leaves)


def all_weights(job: Job, mesh: Mesh | AbstractMesh) -> dict[str, Any]:
    """Return the shapes of all weights that are on the devices throughout a run."""
    trees = {"unet": abstract_params(job.unet)}
    trees |= {"vae": vae.abstract_params(job.vae)} if job.vae else {}
    trees |= {f"text_{i}": text_encoder.abstract_params(one) for i, one in enumerate(job.texts)}
    trees |= {"clip": clip.abstract_params(job.clip)} if job.clip else {}
    return {name: place(job, mesh, tree) for name, tree in trees.items()}


def whole(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """Return the same shapes, whole on every device."""
    put = NamedSharding(mesh, WHOLE)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=put), tree)


def whole_bytes(tree: Any) -> int:
    """Return the bytes of a tree of shapes, all devices' parts together."""
    return sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def gathered(job: Job, params: Any) -> int:
    """Return the bytes of weights that a forward pass makes whole: those that are divided."""
    return whole_bytes(params) if job.fsdp > 1 else 0


def words(count: int, noun: str) -> str:
    """Return such as "1 picture" and "8 items"."""
    return f"{count} {noun}{'s' if count > 1 else ''}"


def _as(x: jax.ShapeDtypeStruct, dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, dtype, sharding=x.sharding)


def _alike(mesh: Mesh | AbstractMesh, moments: Any, masters: Any) -> Any:
    """Return the optimizer's state, each moment placed as its weight, the rest whole."""
    structure = jax.tree.structure(masters)

    def put(tree: Any) -> Any:
        if jax.tree.structure(tree) == structure:
            return jax.tree.map(lambda x, like: _as(like, x.dtype), tree, masters)
        return whole(mesh, tree)

    return jax.tree.map(put, moments, is_leaf=lambda x: jax.tree.structure(x) == structure)
