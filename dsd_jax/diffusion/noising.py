"""The forward diffusion process: schedule, noising, timesteps, and noise keyed by what it is for.

Reference: Ho et al. 2020 (DDPM); the authors' schedule is Stable Diffusion's `scaled_linear`.
"""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.diffusion.schedule_file import SCHEDULE_FILE, parse_schedule
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten

TRAINED = 1000  # timesteps of all Stable Diffusions
_PREDICTIONS = ("epsilon", "v_prediction")


@dataclass(frozen=True)
class Schedule:
    """How much signal is left at each timestep, and what the UNet predicts."""

    steps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction: str = "epsilon"

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "Schedule":
        """Read a diffusers `scheduler/scheduler_config.json`; `UserError` on what we don't know."""
        stated = parse_schedule(json)
        schedule = cls(
            steps=stated.num_train_timesteps,
            beta_start=stated.beta_start,
            beta_end=stated.beta_end,
            beta_schedule=stated.beta_schedule,
            prediction=stated.prediction_type,
        )
        file, kind = SCHEDULE_FILE, stated.class_name or ""
        if kind.startswith(("EDM", "FlowMatch")):
            raise UserError(
                f"{file}: {kind} has another way of adding noise than Stable Diffusion's betas, "
                "and dsd_jax doesn't know it; use a model trained with 'scaled_linear' betas."
            )
        if schedule.prediction not in _PREDICTIONS:
            raise UserError(
                f"{file}: prediction_type is '{schedule.prediction}', expected one of "
                f"{', '.join(_PREDICTIONS)}."
            )
        if schedule.steps != TRAINED:
            raise UserError(
                f"{file}: num_train_timesteps is {schedule.steps}, expected {TRAINED}: every "
                "Stable Diffusion was trained with so many, and scores take their timesteps from "
                "these; use the file of the model that the weights come from."
            )
        if stated.rescale_betas_zero_snr:
            raise UserError(
                f"{file}: rescale_betas_zero_snr is true, which no Stable Diffusion or SDXL has "
                "and dsd_jax doesn't know; set it to false only if the model was trained so."
            )
        if schedule.beta_schedule not in ("scaled_linear", "linear") or stated.trained_betas:
            raise UserError(
                f"{file}: beta_schedule '{schedule.beta_schedule}' with trained_betas "
                f"{shorten(stated.trained_betas)} is not supported; expected 'scaled_linear' or "
                "'linear' and no trained_betas."
            )
        return schedule

    def to_json(self) -> dict[str, Any]:
        """The `scheduler_config.json` that diffusers reads back as the same process."""
        return {
            "_class_name": "DDIMScheduler",
            "_diffusers_version": "0.10.0",
            "num_train_timesteps": self.steps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        }

    def alphas_cumprod(self) -> np.ndarray:
        """Signal power left at each timestep: (steps,) float32, falling, in (0, 1)."""
        if self.beta_schedule == "linear":
            betas = np.linspace(self.beta_start, self.beta_end, self.steps, dtype=np.float64)
        else:
            roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.steps)
            betas = roots.astype(np.float64) ** 2
        return np.cumprod(1.0 - betas).astype(np.float32)

    def scales(self, timesteps: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Signal and noise amplitudes at `timesteps`: two float32 arrays of its shape."""
        alphas = jnp.asarray(self.alphas_cumprod())[timesteps]
        return jnp.sqrt(alphas), jnp.sqrt(1.0 - alphas)

    def add_noise(self, latents: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """sqrt(abar_t) z + sqrt(1 - abar_t) eps; `timesteps` (B,) for latents (B, H, W, 4)."""
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * latents + sigma * noise

    def target(self, latents: jax.Array, noise: jax.Array, timesteps: jax.Array) -> jax.Array:
        """What the UNet learns to predict, for rows (B, H, W, 4): the noise, or v."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * noise - sigma * latents

    def epsilon(self, prediction: jax.Array, noisy: jax.Array, timesteps: jax.Array) -> jax.Array:
        """The UNet's prediction as noise, for rows (B, H, W, 4): eps = sqrt(abar) v + sigma x_t."""
        if self.prediction == "epsilon":
            return prediction
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * prediction + sigma * noisy


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
