"""Phase 2: text tower and UNet together, by predicting the noise in latents of the finished VAE.

Stable Diffusion's text tower has learned from contrasts (it is CLIP's) before the UNet sees it.
Ours starts from nothing, and the denoising loss alone is slow to tell "a cat left of a dog" from "a
dog left of a cat". So a part of the pictures is also denoised under a caption with the two things'
places exchanged, which should do worse.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from dsd_jax.data.scenes import caption_pair
from dsd_jax.diffusion import Schedule
from dsd_jax.models.text import CLIPText, TextConfig
from dsd_jax.models.unet import UNet2DCondition, UNetConfig
from dsd_jax.models.vae import AutoencoderKL, VAEConfig
from dsd_jax.pretraining.pictures import Stream, to_pixels

DRAWS = 2  # timesteps and noises per picture in a batch: the caption is encoded once for all
MIDDLE = (300, 1000)  # timesteps at which objects and their places are decided
MIDDLE_SHARE = 0.75
EMPTY_SHARE = 0.1  # captions replaced by "", so that the model knows the unconditional case
EXCHANGED_EVERY = 2  # of so many pictures one is denoised under an exchanged caption, too
GAP = 0.05  # relative excess of the exchanged caption's error that the contrast asks for


class State(NamedTuple):
    """What denoiser training carries from step to step; `params` is {"text": ..., "unet": ...}."""

    params: Any
    optimiser: Any
    average: Any
    step: jax.Array


class Batch(NamedTuple):
    """P pictures: latents (P, H, W, C), captions' ids (P, 77), timesteps (P, DRAWS).

    `exchanged_ids` (P / EXCHANGED_EVERY, 77) are of the pictures 0, EXCHANGED_EVERY, ...; equal to
    `ids` where there are no two things to exchange.
    """

    latents: np.ndarray
    ids: np.ndarray
    exchanged_ids: np.ndarray
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
        for part in range(self._size // 256):
            images, drawn = self._stream.batch([self._seed, 3, number, part], 256)
            latents.append(np.asarray(self._encode(images)))
            scenes += drawn
        return np.concatenate(latents), scenes


def encoder(config: VAEConfig, params: Any) -> Callable[[np.ndarray], np.ndarray]:
    """uint8 pictures -> scaled latents, from the posterior's mean."""
    model = AutoencoderKL(config)
    run = jax.jit(lambda p, x: model.apply({"params": p}, x, method="encode")[0])
    return lambda images: np.asarray(run(params, to_pixels(images))) * config.scaling_factor


def batch(latents: Latents, tokenise: Callable, seed: int, pictures: int, step: int) -> Batch:
    """The batch of a step: fresh captions, timesteps mostly in the middle of the process."""
    rows, scenes = latents.rows(step, pictures)
    rng = np.random.default_rng([seed, 5, step])
    concepts = latents.concepts
    pairs = [caption_pair(scene, concepts, rng) for scene in scenes]
    empty = rng.random(pictures) < EMPTY_SHARE
    pairs = [("", "") if drop else pair for pair, drop in zip(pairs, empty, strict=True)]
    texts, exchanged = zip(*pairs, strict=True)
    shape = (pictures, DRAWS)
    middle = rng.random(shape) < MIDDLE_SHARE
    steps = np.where(middle, rng.integers(*MIDDLE, shape), rng.integers(0, 1000, shape))
    ids, exchanged_ids = tokenise(texts), tokenise(exchanged[::EXCHANGED_EVERY])
    return Batch(rows, ids, exchanged_ids, steps.astype(np.int32))


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


def init(
    unet: UNetConfig, text: TextConfig, transform: optax.GradientTransformation, seed: int
) -> State:
    """Random weights; residual branches start at zero, so that every block starts as identity."""
    size = unet.sample_size
    key = jax.random.key(seed)
    ids = jnp.zeros((1, text.positions), jnp.int32)
    params = {
        "text": jax.jit(CLIPText(text).init)(key, ids)["params"],
        "unet": jax.jit(UNet2DCondition(unet).init)(
            key,
            jnp.zeros((1, size, size, unet.in_channels)),
            jnp.zeros((1,), jnp.int32),
            jnp.zeros((1, 1, unet.cross_attention_dim)),
        )["params"],
    }
    params["unet"] = jax.tree_util.tree_map_with_path(_zero_residual, params["unet"])
    return start(params, transform)


def start(params: Any, transform: optax.GradientTransformation) -> State:
    """The state before the first step from `params`, {"text", "unet"}."""
    average = jax.tree.map(jnp.copy, params)  # `update` donates its state: no buffer twice
    return State(params, transform.init(params), average, jnp.zeros((), jnp.int32))


def _zero_residual(path: tuple, leaf: jax.Array) -> jax.Array:
    last = [entry.key for entry in path][-2]
    return jnp.zeros_like(leaf) if last in ("conv2", "proj_out", "conv_out") else leaf


def loss_function(unet: UNetConfig, text: TextConfig, schedule: Schedule, order: float) -> Callable:
    """(params, batch, key) -> (loss, {"denoising", "order"}).

    The loss is the mean squared error of the predicted noise (or v), and `order` times the contrast
    with exchanged captions. The metric "order" is how often the right caption does better, of those
    that were exchanged.
    """
    denoise, read = UNet2DCondition(unet), CLIPText(text)

    def loss(params: Any, rows: Batch, key: jax.Array) -> tuple[jax.Array, dict]:
        steps = rows.timesteps.reshape(-1)
        captions = jnp.repeat(jnp.arange(len(rows.ids)), DRAWS)
        clean = rows.latents[captions]
        noise = jax.random.normal(key, clean.shape)
        # The first draw of a picture is seen again under the exchanged caption.
        again = jnp.arange(0, len(steps), DRAWS * EXCHANGED_EVERY)
        captions = jnp.concatenate([captions, len(rows.ids) + jnp.arange(len(again))])
        noisy, target = (
            jnp.concatenate([x, x[again]])
            for x in (schedule.add_noise(clean, noise, steps), schedule.target(clean, noise, steps))
        )
        ids = jnp.concatenate([rows.ids, rows.exchanged_ids])
        prediction, _ = denoise.apply(
            {"params": params["unet"]},
            noisy,
            jnp.concatenate([steps, steps[again]]),
            read.apply({"params": params["text"]}, ids),
            captions,
        )
        errors = jnp.mean(jnp.square(prediction - target), axis=(1, 2, 3))
        right, wrong = errors[again], errors[len(steps) :]
        differ = jnp.any(rows.ids[::EXCHANGED_EVERY] != rows.exchanged_ids, axis=1)
        denoising = jnp.mean(errors[: len(steps)])
        correct = _mean_where(differ, (right < wrong).astype(jnp.float32))
        total = denoising + order * _mean_where(differ, contrast(right, wrong))
        return total, {"denoising": denoising, "order": correct}

    return loss


def contrast(right: jax.Array, wrong: jax.Array) -> jax.Array:
    """(P,) errors -> (P,): how far `wrong` is from exceeding `right` by about GAP, relatively.

    A softplus in the unit of an error, so that its gradient is at most that of the error itself.
    """
    unit = GAP * jax.lax.stop_gradient(right)
    return unit * jax.nn.softplus((right - wrong) / unit)


def _mean_where(condition: jax.Array, values: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(condition, values, 0.0)) / jnp.maximum(1, condition.sum())


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
