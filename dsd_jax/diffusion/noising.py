"""The forward diffusion process: schedule, noising, timesteps, and noise keyed by what it is for.

Reference: Ho et al. 2020 (DDPM); the authors' schedule is Stable Diffusion's `scaled_linear`.
"""

from functools import partial

import jax


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
