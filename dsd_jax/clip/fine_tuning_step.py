"""A step of fine-tuning a CLIP: which items, their scores, the loss, the update.

Every device computes the scores, losses and gradient of its own items. Two operations cross
devices: one gather of unit vectors, for the loss between items, and one sum of losses and
gradients. By itself XLA makes ten of a step, several of which can be under way at once; each holds
one of the threads that carry simulated devices, which are as many as there are cores.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

from dsd_jax.clip.clip_model import Normalizer, item_cosines
from dsd_jax.config.recipes import ClipRecipe
from dsd_jax.distributed.sharding import WHOLE
from dsd_jax.models.clip import CLIP, CLIPConfig, unit
from dsd_jax.training.few_shot_fit import adamw
from dsd_jax.training.losses import contrastive, cross_entropy

_ROWS = PartitionSpec("data")


class ItemBatch(NamedTuple):
    """Items whose matching image or caption is the first.

    Attributes:
        pixels: (n, P, S, S, 3) uint8.
        ids: (n, J, L) int32, token ids of the captions.
    """

    pixels: Any
    ids: Any

    def take(self, indices: np.ndarray) -> "ItemBatch":
        """Return the items at `indices`."""
        return ItemBatch(self.pixels[indices], self.ids[indices])


class StepInputs(NamedTuple):
    """The arrays of a step beside the trained params and the optimizer's state.

    Attributes:
        params: all of the CLIP's, frozen.
        batch: of all devices, or a device's part of it.
        temperature: () of the scores.
    """

    params: Any
    batch: ItemBatch
    temperature: Any


class Program(NamedTuple):
    """The static (hashable) arguments of the jitted functions.

    Attributes:
        config: of the CLIP.
        dtype: of its params.
        normalize: applied to pixels.
        mesh: of all hosts.
        divided: whether each device has its part of the items, else all of them.
    """

    config: CLIPConfig
    dtype: Any
    normalize: Normalizer
    mesh: Mesh | AbstractMesh
    divided: bool

    @property
    def parts(self) -> int:
        """The number of parts along `data`; XLA rejects sums over an axis of one device."""
        return self.mesh.shape["data"] if self.divided else 1


def batch_indices(indices: np.ndarray, batch_size: int, seed: int, step: int) -> np.ndarray:
    """Draw the items of a step: each of `indices` once, shuffled, before any comes again."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    count = len(indices)
    passes = {
        number: np.random.default_rng([seed, 10, number]).permutation(indices)
        for number in range(int(positions[0]) // count, int(positions[-1]) // count + 1)
    }
    return np.array([passes[int(n) // count][int(n) % count] for n in positions])


def embed(
    program: Program, params: Any, trained: Any, batch: ItemBatch
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return scores (B, candidates) and unit vectors (B, E) of matching images and captions.

    `trained` replaces those of the CLIP's `params` that have its names.
    """
    model, (items, images_per_item) = CLIP(program.config, program.dtype), batch.pixels.shape[:2]
    captions_per_item, variables = batch.ids.shape[1], {"params": {**params, **trained}}
    pixels = batch.pixels.reshape(-1, *batch.pixels.shape[2:])
    ids = batch.ids.reshape(-1, batch.ids.shape[-1])
    towers: Any = model.apply(variables, ids, program.normalize(pixels))
    texts, images = map(unit, towers)
    scale = jnp.exp(params["logit_scale"])
    logits = scale * item_cosines(images, texts, images_per_item, captions_per_item)
    return logits.reshape(items, -1), images[::images_per_item], texts[::captions_per_item]


@cache
def scores_function(program: Program) -> Callable[[Any, Any, ItemBatch], jax.Array]:
    """Return the jitted (params, trained, batch) -> scores (B, candidates).

    They are divided over devices as the batch is.
    """

    def scores(params: Any, trained: Any, batch: ItemBatch) -> jax.Array:
        return embed(program, params, trained, batch)[0]

    return jax.jit(_by_device(program, scores, (WHOLE, WHOLE, _ROWS), _ROWS))


@cache
def update_function(program: Program, recipe: ClipRecipe) -> Any:
    """Return the jitted update; it donates `trained` and `opt_state`.

    It is (trained, opt_state, inputs) -> (trained, opt_state, loss).
    """
    optimizer = adamw(recipe)

    def local_gradient(trained: Any, inputs: StepInputs):
        objective = partial(_objective, program, recipe.contrast)
        (_, loss), grads = jax.value_and_grad(objective, has_aux=True)(trained, inputs)
        return jax.lax.psum((loss, grads), "data") if program.parts > 1 else (loss, grads)

    gradient = _by_device(
        program, local_gradient, (WHOLE, StepInputs._make((WHOLE, _ROWS, WHOLE))), WHOLE
    )

    def update(trained: Any, opt_state: Any, inputs: StepInputs):
        loss, grads = gradient(trained, inputs)
        updates, opt_state = optimizer.update(grads, opt_state, trained)
        return optax.apply_updates(trained, updates), opt_state, loss

    return jax.jit(update, donate_argnums=(0, 1))


def _objective(
    program: Program, contrast: float, trained: Any, inputs: StepInputs
) -> tuple[jax.Array, jax.Array]:
    """Return a value with this device's part of the loss's gradient, and its part of the loss."""
    scores, images, texts = embed(program, inputs.params, trained, inputs.batch)
    own = cross_entropy(scores / inputs.temperature).mean() / program.parts
    if not contrast:
        return own, own
    if program.parts > 1:
        images, texts = _gather_constants(images, texts)
    between, _ = contrastive(images, texts, jnp.exp(inputs.params["logit_scale"]))
    # Every device has the whole of it, but its gradient for its own vectors alone.
    return own + contrast * between, own + contrast * between / program.parts


def _gather_constants(images: jax.Array, texts: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Put a device's unit vectors (b, E) among those of all B items, which are constants."""
    own = jnp.stack([images, texts], axis=1)
    gathered = jax.lax.all_gather(jax.lax.stop_gradient(own), "data", tiled=True)
    start = len(own) * jax.lax.axis_index("data")
    gathered = jax.lax.dynamic_update_slice_in_dim(gathered, own, start, axis=0)
    return gathered[:, 0], gathered[:, 1]


def _by_device(program: Program, function: Any, inputs: tuple, outputs: PartitionSpec) -> Any:
    """Apply a function of a batch to each device's part of it, manual over `data`.

    As in `dsd_jax.few_shot.train_step` XLA divides the rest over `fsdp` as the params are placed.
    """
    if program.parts == 1:
        return function
    return jax.shard_map(
        function,
        mesh=program.mesh,
        axis_names={"data"},
        in_specs=inputs,
        out_specs=outputs,
        check_vma=False,
    )
