"""The noise schedule of a diffusion model, and the `scheduler_config.json` it is read from.

Reference: Ho et al. 2020 (DDPM), diffusers `schedulers/`; the authors' schedule is Stable
Diffusion's `scaled_linear`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from pydantic import Field

from dsd_jax.errors import UserError
from dsd_jax.io.terminal import shorten
from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import ConfigFile

TRAINED = 1000  # timesteps of all Stable Diffusions
_PREDICTIONS = ("epsilon", "v_prediction")
SCHEDULE_FILE = "scheduler/scheduler_config.json"
_Beta = Annotated[float, Field(gt=0, lt=1)]
# What diffusers' classes take where a file says nothing, if not the defaults of `ScheduleFile`.
_LATE = {"beta_start": 0.00085, "beta_end": 0.012}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), {**_LATE, "beta_schedule": "scaled_linear"}),
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler"),
        _LATE,
    ),
}


class ScheduleFile(ConfigFile):
    """What diffusers calls its fields, with the defaults of most of its classes."""

    class_name: str | None = Field(None, alias="_class_name")
    num_train_timesteps: int = Field(1000, ge=1, le=100_000)
    beta_start: _Beta = 0.0001
    beta_end: _Beta = 0.02
    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    rescale_betas_zero_snr: bool | None = False
    trained_betas: Any = None


def parse_schedule(json: Mapping[str, Any]) -> ScheduleFile:
    """Check the content of a `scheduler_config.json`; raises `UserError`."""
    name = json.get("_class_name")
    defaults = _DEFAULTS.get(name, {}) if isinstance(name, str) else {}
    remedy = "use the scheduler_config.json that diffusers wrote for this model"
    return parse(ScheduleFile, {**defaults, **json}, SCHEDULE_FILE, remedy)


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
