"""The forward diffusion process: its schedule, read from `scheduler_config.json`, and the noise.

Noise is a function of (seed, image, timestep): `keyed_noise`. Reference: Ho et al. 2020 (DDPM),
diffusers `schedulers/`; the authors' schedule is Stable Diffusion's `scaled_linear`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Integer
from pydantic import Field

from dsd_jax.config.score_spec import TRAINED_TIMESTEPS
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import printable, shorten
from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import ConfigFile

ArrayLike = Array | np.ndarray
Latents = Float[ArrayLike, "B h w D"]
Timesteps = Int[ArrayLike, " B"]
_PREDICTIONS = ("epsilon", "v_prediction")
SCHEDULE_FILE = "scheduler/scheduler_config.json"
_Beta = Annotated[float, Field(gt=0, lt=1)]
# Defaults of diffusers' classes that differ from those of `ScheduleFile`.
_LATE = {"beta_start": 0.00085, "beta_end": 0.012}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    **dict.fromkeys(("LCMScheduler", "TCDScheduler"), {**_LATE, "beta_schedule": "scaled_linear"}),
    **dict.fromkeys(
        ("HeunDiscreteScheduler", "KDPM2AncestralDiscreteScheduler", "KDPM2DiscreteScheduler"),
        _LATE,
    ),
}


class ScheduleFile(ConfigFile):
    """The fields of `scheduler_config.json`, with the defaults of most diffusers classes."""

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
    """A noise schedule.

    Attributes:
        num_timesteps: number of timesteps.
        beta_start, beta_end, beta_schedule: how the noise variance of a timestep grows.
        prediction: what the UNet predicts, "epsilon" or "v_prediction".
    """

    num_timesteps: int = 1000
    beta_start: float = 0.00085
    beta_end: float = 0.012
    beta_schedule: str = "scaled_linear"
    prediction: str = "epsilon"

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> "Schedule":
        """Read a diffusers `scheduler/scheduler_config.json`; `UserError` if unsupported."""
        stated = parse_schedule(json)
        schedule = cls(
            num_timesteps=stated.num_train_timesteps,
            beta_start=stated.beta_start,
            beta_end=stated.beta_end,
            beta_schedule=stated.beta_schedule,
            prediction=stated.prediction_type,
        )
        file, kind = SCHEDULE_FILE, stated.class_name or ""
        if kind.startswith(("EDM", "FlowMatch")):
            raise UserError(
                f"{file}: {printable(kind)} has another way of adding noise than Stable "
                "Diffusion's betas, and dsd_jax doesn't know it; use a model trained with "
                "'scaled_linear' betas."
            )
        if schedule.prediction not in _PREDICTIONS:
            raise UserError(
                f"{file}: prediction_type is {shorten(schedule.prediction)}, expected one of "
                f"{', '.join(_PREDICTIONS)}."
            )
        if schedule.num_timesteps != TRAINED_TIMESTEPS:
            raise UserError(
                f"{file}: num_train_timesteps is {schedule.num_timesteps}, expected "
                f"{TRAINED_TIMESTEPS}: every Stable Diffusion was trained with so many, and scores "
                "take their timesteps from these; use the file of the model that the weights come "
                "from."
            )
        if stated.rescale_betas_zero_snr:
            raise UserError(
                f"{file}: rescale_betas_zero_snr is true, which no Stable Diffusion or SDXL has "
                "and dsd_jax doesn't know; set it to false only if the model was trained so."
            )
        if schedule.beta_schedule not in ("scaled_linear", "linear") or stated.trained_betas:
            raise UserError(
                f"{file}: beta_schedule {shorten(schedule.beta_schedule)} with trained_betas "
                f"{shorten(stated.trained_betas)} is not supported; expected 'scaled_linear' or "
                "'linear' and no trained_betas."
            )
        return schedule

    def to_json(self) -> dict[str, Any]:
        """Return the `scheduler_config.json` that diffusers reads as the same process."""
        return {
            "_class_name": "DDIMScheduler",
            "_diffusers_version": "0.10.0",
            "num_train_timesteps": self.num_timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction,
            "clip_sample": False,
            "set_alpha_to_one": False,
            "steps_offset": 1,
        }

    def alphas_cumprod(self) -> Float[np.ndarray, " T"]:
        """Return the signal power at each timestep: float32, falling, in (0, 1)."""
        if self.beta_schedule == "linear":
            betas = np.linspace(
                self.beta_start, self.beta_end, self.num_timesteps, dtype=np.float64
            )
        else:
            roots = np.linspace(self.beta_start**0.5, self.beta_end**0.5, self.num_timesteps)
            betas = roots.astype(np.float64) ** 2
        return np.cumprod(1.0 - betas).astype(np.float32)

    def scales(
        self, timesteps: Int[ArrayLike, "*B"]
    ) -> tuple[Float[Array, "*B"], Float[Array, "*B"]]:
        """Return signal and noise amplitudes, float32."""
        alphas = jnp.asarray(self.alphas_cumprod())[timesteps]
        return jnp.sqrt(alphas), jnp.sqrt(1.0 - alphas)

    def add_noise(
        self, latents: Latents, noise: Latents, timesteps: Timesteps
    ) -> Float[Array, "B h w D"]:
        """Return sqrt(abar_t) z + sqrt(1 - abar_t) eps."""
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * latents + sigma * noise

    def target(self, latents: Latents, noise: Latents, timesteps: Timesteps) -> Latents:
        """Return what the UNet is trained to predict, the noise or v."""
        if self.prediction == "epsilon":
            return noise
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * noise - sigma * latents

    def epsilon(self, prediction: Latents, noisy: Latents, timesteps: Timesteps) -> Latents:
        """Return the prediction as noise: eps = sqrt(abar) v + sigma x_t."""
        if self.prediction == "epsilon":
            return prediction
        signal, sigma = (x[:, None, None, None] for x in self.scales(timesteps))
        return signal * prediction + sigma * noisy


@partial(jax.jit, static_argnums=3)
def keyed_noise(
    seeds: Integer[ArrayLike, " T"],
    images: Integer[ArrayLike, " I"],
    timesteps: Integer[ArrayLike, " T"],
    shape: tuple[int, ...],
) -> Float[Array, "I T *shape"]:
    """Draw standard normal noise that depends on (seed, image, timestep) alone.

    Args:
        seeds: int32, the seed at each timestep.
        images: uint32, a number that stands for each image; where they are divided over devices,
            each device draws its own part.
        timesteps: int32.
        shape: (h, w, D) of one latent.

    Returns:
        float32: the same for every caption, batch, chunk, device and host.
    """

    def draw(image: ArrayLike, seed: ArrayLike, timestep: ArrayLike) -> Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), image), timestep)
        return jax.random.normal(key, shape)

    def draw_all(image: ArrayLike) -> Array:
        return jax.vmap(draw, (None, 0, 0))(image, seeds, timesteps)

    return jax.vmap(draw_all)(images)
