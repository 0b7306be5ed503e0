"""The real training and scoring steps with shapes for arguments, ready for a compiler."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AbstractMesh, Mesh, NamedSharding

from dsd_jax import learning
from dsd_jax.batches import Batch, Rows
from dsd_jax.diffusion import Schedule
from dsd_jax.errors import UserError
from dsd_jax.models.blocks import Blocks
from dsd_jax.models.unet import abstract_params
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.planning.figures import QUICK, compile_figures
from dsd_jax.planning.minimum import forward_flops, least_training_flops
from dsd_jax.planning.plan import Plan, device_bytes
from dsd_jax.planning.topology import Slice
from dsd_jax.sharding import AXES, ROWS, WHOLE, spec_of
from dsd_jax.shots import Recipe
from dsd_jax.steps import State, Step, batch_loss, hardest_candidates, optimiser, update_function
from dsd_jax.terms import Network, Wanted, forward_terms
from dsd_jax.texts import Texts
from dsd_jax.weights.names import flatten, unflatten

POSITIONS = 77  # of a caption
DOWNSCALE = 8  # pixels per latent position, in all published families


class Job(NamedTuple):
    """What is planned.

    Attributes:
        unet: the network.
        schedule: of its noise.
        dtype: of the weights and matrix products.
        recipe: how prompts are learned; its batch is not read.
        pictures, captions: of an item.
        fsdp: devices that share one copy of the weights.
    """

    unet: UNetConfig
    schedule: Schedule
    dtype: Any
    recipe: Recipe
    pictures: int
    captions: int
    fsdp: int


def plan_training(job: Job, where: Slice, batch: int) -> Plan:
    """One step of learning from `batch` items per device, rounded up to equal parts."""
    mesh, batch = mesh_on(where, job.fsdp), batch + -batch % job.recipe.accumulate
    items, (function, arguments) = batch * mesh.size, training_step(job, mesh, batch)
    pairs = items * job.pictures * job.captions * job.recipe.timesteps
    found = compile_figures(function, *arguments, options=QUICK)
    weights, least = device_bytes(arguments[2]), items * least_of_item(job)
    return Plan("train", where, batch, pairs, weights, least, found)


def plan_scoring(job: Job, where: Slice, batch: int) -> Plan:
    """One call that scores `batch` items per device at one timestep, the empty caption too."""
    mesh = mesh_on(where, job.fsdp)
    items, (function, arguments) = batch * mesh.size, scoring_step(job, mesh, batch)
    with jax.set_mesh(mesh):
        found = compile_figures(function, *arguments, options=QUICK)
    alone = scoring_step(job._replace(fsdp=1), _one_device(), 1)
    least = forward_flops(alone[0], *alone[1])
    pairs = items * job.pictures * job.captions
    return Plan("score", where, batch, pairs, device_bytes(arguments[0]), items * least, found)


def training_step(job: Job, mesh: Mesh | AbstractMesh, batch: int) -> tuple[Callable, tuple]:
    """The jitted update of a run and its arguments, of which the third are the weights."""
    wanted = learning.wanted_by(job.unet, job.recipe, {})
    step = Step(_network(job, wanted, job.recipe.remat), job.recipe, mesh)
    tree = _whole(mesh, jax.eval_shape(lambda: learning.init(job.unet, job.recipe, 0)))
    state = State(tree, _whole(mesh, jax.eval_shape(optimiser(job.recipe).init, tree)))
    unit = jax.ShapeDtypeStruct((), jnp.float32)
    spreads = _whole(mesh, dict.fromkeys(job.recipe.methods, unit))
    rows = abstract_batch(job, mesh, batch * mesh.size)
    return update_function(step), (state, {}, abstract_weights(job, mesh), rows, spreads)


def scoring_step(job: Job, mesh: Mesh | AbstractMesh, batch: int) -> tuple[Callable, tuple]:
    """The jitted forward pass of evaluation and its arguments; the first are the weights."""
    net = _network(job, learning.wanted_by(job.unet, job.recipe, {}))
    function = jax.jit(lambda params, *rest: forward_terms(net, params, {}, *rest))
    inputs = _scoring_inputs(job, mesh, batch * mesh.size)
    return function, (abstract_weights(job, mesh), *inputs)


def mesh_on(where: Slice, fsdp: int) -> Mesh:
    """The slice's devices as a run's mesh has them; `UserError` where that cannot be."""
    here = len(where.devices) // where.hosts
    if fsdp < 1 or here % fsdp:
        raise UserError(f"fsdp is {fsdp}, which does not divide the {here} devices of a host.")
    devices = sorted(where.devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(devices).reshape(-1, fsdp), AXES)


def abstract_weights(job: Job, mesh: Mesh | AbstractMesh) -> Any:
    """The UNet's parameters as they are placed when they are loaded."""
    leaves = {
        path: jax.ShapeDtypeStruct(
            leaf.shape,
            job.dtype,
            sharding=NamedSharding(mesh, spec_of("/".join(path), leaf.shape, mesh)),
        )
        for path, leaf in flatten(abstract_params(job.unet)).items()
    }
    return unflatten(leaves)


def abstract_batch(job: Job, mesh: Mesh | AbstractMesh, items: int) -> Batch:
    """A batch of `items` at the recipe's timesteps."""
    times, pictures = job.recipe.timesteps, job.pictures

    def rows(*shape: int, dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((items, *shape), dtype, sharding=NamedSharding(mesh, ROWS))

    def alike(*shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, jnp.int32, sharding=NamedSharding(mesh, WHOLE))

    return Batch(
        Rows(
            rows(pictures, *_latent(job)),
            texts_like(job, job.captions, rows),
            rows(dtype=jnp.int32),
            rows(),
            {},
            rows(pictures, times),
        ),
        alike(times),
        alike(times),
        alike(),
    )


def least_of_item(job: Job) -> int:
    """Floating-point operations that learning from one item cannot do without.

    Those candidates that the loss does not depend on are scored, too, but have no gradient.
    """
    job, mesh = job._replace(fsdp=1), _one_device()
    step = Step(_network(job, learning.wanted_by(job.unet, job.recipe, {})), job.recipe, mesh)
    tree = jax.eval_shape(lambda: learning.init(job.unet, job.recipe, 0))
    params, batch = abstract_weights(job, mesh), abstract_batch(job, mesh, 1)
    spreads = dict.fromkeys(job.recipe.methods, 1.0)

    def loss(tree: Any, params: Any, batch: Batch) -> jax.Array:
        few = hardest_candidates(step, tree, {}, params, batch, spreads)
        return batch_loss(step, tree, {}, params, few, spreads)

    return least_training_flops(loss, 0, tree, params, batch)


def _one_device() -> Mesh:
    return Mesh(np.array(jax.devices()[:1]).reshape(1, 1), AXES)


def _network(job: Job, wanted: Wanted, remat: str = "nothing") -> Network:
    blocks = Blocks(remat, gather=job.fsdp > 1)
    size = job.unet.sample_size * DOWNSCALE
    return Network(job.unet, job.schedule, jnp.dtype(job.dtype), wanted, blocks, size)


def _scoring_inputs(job: Job, mesh: Mesh | AbstractMesh, items: int) -> tuple:
    """Latents, noise, timesteps and texts of items with the empty caption beside their own."""

    def rows(count: int, *shape: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            (count, *shape), jnp.float32, sharding=NamedSharding(mesh, ROWS)
        )

    grid = rows(items * job.pictures, 1, *_latent(job))
    times = jax.ShapeDtypeStruct((1,), jnp.int32, sharding=NamedSharding(mesh, WHOLE))
    texts = texts_like(job, 1 + job.captions, partial(rows, items))
    return grid, grid, times, texts


def texts_like(job: Job, captions: int, rows: Callable[..., jax.ShapeDtypeStruct]) -> Texts:
    """Texts of so many captions of every item; `rows` makes an array with items in front."""
    return Texts(
        rows(captions, POSITIONS, job.unet.cross_attention_dim),
        rows(captions, job.unet.pooled_dim),
    )


def _latent(job: Job) -> tuple[int, int, int]:
    return job.unet.sample_size, job.unet.sample_size, job.unet.in_channels


def _whole(mesh: Mesh | AbstractMesh, tree: Any) -> Any:
    """The same shapes, whole on every device."""
    place = NamedSharding(mesh, WHOLE)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), tree)
