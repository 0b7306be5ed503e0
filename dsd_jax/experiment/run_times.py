"""Run times of earlier runs on this machine, from which a banner tells how long a run will take.

The cache folder holds one small file per job: a command with a config, on these devices.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dsd_jax.errors import UserError
from dsd_jax.io.local_files import cache_folder, read_json, write_json

FOLDER = "times"  # in the cache folder
_ELSEWHERE = ("cache", "tracker", "profile", "seed")  # fields that leave the time as it is


def earlier_seconds(command: str, settings: Mapping[str, Any], device: str) -> float | None:
    """Return the seconds that a job took when it last ran here, None where it has not.

    Args:
        command: such as "train".
        settings: the config and what else decides the report, JSON values.
        device: from `model_facts.device_fact`.
    """
    with contextlib.suppress(UserError, OSError):
        seconds = read_json(_file(command, settings, device)).get("seconds")
        if isinstance(seconds, int | float) and math.isfinite(seconds) and seconds > 0:
            return float(seconds)
    return None


def remember_seconds(
    command: str, settings: Mapping[str, Any], device: str, seconds: float
) -> None:
    """Keep the seconds that a job took, where the cache folder can be written to.

    Args:
        command, settings, device: as for `earlier_seconds`.
        seconds: from the start of the job to its report.
    """
    with contextlib.suppress(UserError, OSError):
        file = _file(command, settings, device)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"command": command, "device": device, "seconds": round(seconds, 1)})


def _file(command: str, settings: Mapping[str, Any], device: str) -> Path:
    deciding = {name: value for name, value in settings.items() if name not in _ELSEWHERE}
    identity = json.dumps([command, deciding, device], sort_keys=True)
    return cache_folder() / FOLDER / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.json"
