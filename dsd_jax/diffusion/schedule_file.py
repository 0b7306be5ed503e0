"""The fields of `scheduler_config.json` that decide how noise is added, checked.

Reference: diffusers `schedulers/`.
"""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from dsd_jax.io.validation import parse
from dsd_jax.models.json_config import ConfigFile

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
