"""Phase 3: text tower and UNet together, by denoising latents of the finished VAE."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from dsd_jax.config.pretrain_config import POOL
from dsd_jax.data.synthetic.scenes import caption
from dsd_jax.diffusion.schedule import Schedule
from dsd_jax.models.text_encoder import CLIPTextEncoder, TextConfig
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig
from dsd_jax.pretraining import reading_task
from dsd_jax.pretraining.scene_batches import Stream, to_pixels

DRAWS = 2  # timesteps and noises per picture in a batch: the caption is encoded once for all
MIDDLE = (300, 1000)  # timesteps at which objects and their places are decided
MIDDLE_SHARE = 0.75
READING = 0.1  # weight of the reading task, lest the tower forget what the UNet has yet to use
EMPTY_SHARE = 0.1  # captions replaced by "", so that the model knows the unconditional case


class State(NamedTuple):
    """What training carries from step to step; `params` is {"text", "reader", "unet"}."""

    params: Any
    optimiser: Any
    average: Any
    step: jax.Array


class Batch(NamedTuple):
    """P pictures: latents (P, H, W, C), captions' ids (P, 77) and what they say of each side
    (P, 4, 2), timesteps (P, DRAWS).
    """

    latents: np.ndarray
    ids: np.ndarray
    sides: np.ndarray
    timesteps: np.ndarray


class Latents:
    """Latents of a stream's pictures, encoded once per pool of them and used several times.

    A pool holds as many pictures as `steps` batches take at `passes` passes; which pictures, and
    their order in each pass, depends on the seed and the step alone.
    """

    def __init__(self, encode: Callable, stream: Stream, seed: int, pictures: int, passes: int):
        """`encode`: uint8 pictures (n, 64, 64, 3) -> latents (n, H, W, C)."""
        self._encode, self._stream, self._seed = encode, stream, seed
        self._size, self._passes = pictures, passes
        self._number, self._pool = -1, None
        self.concepts = stream.sprites.concepts

    def rows(self, step: int, count: int) -> tuple[np.ndarray, list]:
        """The latents and scenes of the `count` pictures of this step."""
        steps = self._size // count
        turn, position = divmod(step, steps)
        number, _ = divmod(turn, self._passes)
        if number != self._number:
            self._pool, self._number = self._draw(number), number
        latents, scenes = self._pool
        order = np.random.default_rng([self._seed, 4, turn]).permutation(self._size)
        rows = order[position * count : (position + 1) * count]
        return latents[rows], [scenes[row] for row in rows]

    def _draw(self, number: int) -> tuple[np.ndarray, list]:
        latents, scenes = [], []
        for part in range(self._size // POOL):
            images, drawn = self._stream.batch([self._seed, 3, number, part], POOL)
            latents.append(np.asarray(self._encode(images)))
            scenes += drawn
        return np.concatenate(latents), scenes


def encoder(config: VAEConfig, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures -> scaled latents, from the posterior's mean."""
    model = AutoencoderKL(config)
    run = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode")[0])
    return lambda images: np.asarray(run(params, to_pixels(images))) * config.scaling_factor


def batch(latents: Latents, tokenize: Callable, seed: int, pictures: int, step: int) -> Batch:
    """The batch of a step: fresh captions, timesteps mostly in the middle of the process."""
    rows, scenes = latents.rows(step, pictures)
    rng = np.random.default_rng([seed, 5, step])
    concepts = latents.concepts
    texts = [caption(scene, concepts, rng) for scene in scenes]
    empty = rng.random(pictures) < EMPTY_SHARE
    texts = ["" if drop else text for text, drop in zip(texts, empty, strict=True)]
    sides = reading_task.sides(scenes, texts, concepts)
    shape = (pictures, DRAWS)
    middle = rng.random(shape) < MIDDLE_SHARE
    steps = np.where(middle, rng.integers(*MIDDLE, shape), rng.integers(0, 1000, shape))
    return Batch(rows, tokenize(texts), sides, steps.astype(np.int32))


def optimiser(learning_rate: float, steps: int, cooldown: float) -> optax.GradientTransformation:
    """AdamW: warm-up, a constant rate, down to nothing over the last `cooldown` of the steps."""
    warmup, fall = min(300, steps // 10), round(cooldown * steps)
    schedule = optax.join_schedules(
        [
            optax.linear_schedule(0.0, learning_rate, max(1, warmup)),
            optax.constant_schedule(learning_rate),
            optax.linear_schedule(learning_rate, 0.0, max(1, fall)),
        ],
        [warmup, steps - fall],
    )
    return optax.chain(
        optax.clip_by_global_norm(1.0), optax.adamw(schedule, b2=0.99, weight_decay=0.01)
    )


def init_unet(config: UNetConfig, key: jax.Array) -> Any:
    """Random weights; residual branches start at zero, so that every block starts as identity."""
    size = config.sample_size
    params = jax.jit(UNet2DCondition(config).init)(
        key,
        jnp.zeros((1, size, size, config.in_channels)),
        jnp.zeros((1,), jnp.int32),
        jnp.zeros((1, 1, 1, config.cross_attention_dim)),
    )["params"]
    return jax.tree_util.tree_map_with_path(_zero_residual, params)


def start(params: Any, transform: optax.GradientTransformation) -> State:
    """The state before the first step from `params`, {"text", "reader", "unet"}."""
    average = jax.tree.map(jnp.copy, params)  # `update` donates its state: no buffer twice
    return State(params, transform.init(params), average, jnp.zeros((), jnp.int32))


def _zero_residual(path: tuple, leaf: jax.Array) -> jax.Array:
    last = [entry.key for entry in path][-2]
    return jnp.zeros_like(leaf) if last in ("conv2", "proj_out", "conv_out") else leaf


def loss_function(unet: UNetConfig, text: TextConfig, schedule: Schedule) -> Callable:
    """(params, batch, key) -> (loss, {"denoising", "reading"}).

    The mean squared error of the predicted noise (or v), and a little of the reading task.
    """
    denoise, tower = UNet2DCondition(unet), CLIPTextEncoder(text)

    def loss(params: Any, rows: Batch, key: jax.Array) -> tuple[jax.Array, dict]:
        steps = rows.timesteps.reshape(-1)
        latents = jnp.repeat(rows.latents, DRAWS, axis=0)
        noise = jax.random.normal(key, latents.shape)
        states = tower.apply({"params": params["text"]}, rows.ids)
        prediction, _ = denoise.apply(
            {"params": params["unet"]},
            schedule.add_noise(latents, noise, steps),
            steps,
            states[:, None],
        )
        error = jnp.mean(jnp.square(prediction - schedule.target(latents, noise, steps)))
        unread, _ = reading_task.loss(params["reader"], states, rows.sides)
        return error + READING * unread, {"denoising": error, "reading": unread}

    return loss


def update_function(
    loss: Callable, transform: optax.GradientTransformation, mesh: Mesh, seed: int
) -> Callable:
    """The jitted (state, batch) -> (state, metrics); each device sees its share of pictures."""
    rows, whole = PartitionSpec("data"), PartitionSpec()

    def gradient(params: Any, batch: Batch, step: jax.Array):
        key = jax.random.fold_in(jax.random.key(seed), step)
        key = jax.random.fold_in(key, jax.lax.axis_index("data"))
        grads, metrics = jax.grad(loss, has_aux=True)(params, batch, key)
        return jax.lax.pmean((grads, metrics), "data")

    sharded = jax.shard_map(
        gradient, mesh=mesh, in_specs=(whole, rows, whole), out_specs=whole, check_vma=False
    )

    def update(state: State, batch: Batch):
        grads, metrics = sharded(state.params, batch, state.step)
        updates, opt_state = transform.update(grads, state.optimiser, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = jnp.minimum(0.999, (1 + state.step) / (10 + state.step))
        average = optax.incremental_update(params, state.average, 1 - decay)
        return State(params, opt_state, average, state.step + 1), metrics

    return jax.jit(update, donate_argnums=0)
