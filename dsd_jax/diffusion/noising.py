"""The forward diffusion process: schedule, noising, timesteps, and noise keyed by what it is for.

Reference: Ho et al. 2020 (DDPM); the authors' schedule is Stable Diffusion's `scaled_linear`.
"""

import warnings
from functools import partial

import jax
import numpy as np

from dsd_jax.diffusion.schedule import TRAINED
from dsd_jax.errors import UserError


def timesteps(count: int) -> np.ndarray:
    """Return about `count` timesteps, ascending, spread as the authors do (`METHOD`, pipe: step 3).

    Their rule strides [10, 990) by `int(1000 / count)`. Up to 30 that gives `count` of them, beyond
    it may be more or fewer: 49 for 50, 55 for 53, 490 for 400, 980 for more than 500.
    `warn_of_count` says so.

    Raises:
        UserError: `count` is not in 1..1000.
    """
    if not 1 <= count <= 1000:
        raise UserError(f"timesteps is {count}; expected a number of timesteps from 1 to 1000.")
    return np.sort(999 - np.arange(10, 990, 1000 // count)).astype(np.int32)


def warn_of_count(count: int) -> None:
    """Warn if `timesteps(count)` are not `count`."""
    found = len(timesteps(count))
    if found != count:
        warnings.warn(
            f"{count} timesteps are asked for, {found} are scored: the authors' rule takes every "
            f"{TRAINED // count}th from 10 to 990.",
            stacklevel=3,
        )


@partial(jax.jit, static_argnums=3)
def keyed_noise(
    seeds: jax.Array, images: jax.Array, timesteps: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Standard normal noise that depends on (seed, image, timestep) alone.

    Args:
        seeds: (T,) int32, each timestep's seed.
        images: (I,) uint32, a number that stands for each picture; where they are split over
            devices, each device draws the noise of its own.
        timesteps: (T,) int32.
        shape: (h, w, channels) of one latent.

    Returns:
        (I, T, h, w, channels) float32: the same for every caption, batch, chunk, device and host.
    """

    def one(image: jax.Array, seed: jax.Array, timestep: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image), timestep)
        return jax.random.normal(key, shape)

    def picture(image: jax.Array) -> jax.Array:
        return jax.vmap(one, (None, 0, 0))(image, seeds, timesteps)

    return jax.vmap(picture)(images)
