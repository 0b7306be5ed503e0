"""What a config asks to be planned: the network's shape, the recipe, nothing of the weights."""

from pathlib import Path

from dsd_jax import methods
from dsd_jax.diffusion import Schedule
from dsd_jax.errors import UserError
from dsd_jax.few_shot import recipe
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.planning.published import SCHEDULE, UNETS
from dsd_jax.planning.steps import Job
from dsd_jax.run_config import RunConfig
from dsd_jax.weights.component import UNET
from dsd_jax.weights.configs import read_config, read_schedule
from dsd_jax.weights.folder import find
from dsd_jax.weights.load import float_type

PICTURES, CAPTIONS = 2, 1  # of an item of the benchmark


def read_job(config: RunConfig, name: str | None = None) -> Job:
    """The config's recipe `name`, or its first one, on the network of its weights.

    Nothing is downloaded for the models in `published`, unless a folder has that name.

    Raises:
        UserError: a field of the config is none that we know, or the recipe takes no steps.
    """
    name = name or config.recipes[0]
    if name not in config.learn:
        raise UserError(f"recipe '{name}' is unknown; expected one of {', '.join(config.learn)}.")
    unet, schedule = _network(config.weights)
    settings = recipe(config.learn[name], methods.chosen_layers(unet, config.layers or None))
    if not {"lora", "tokens"} & set(settings.kinds):
        raise UserError(
            f"recipe '{name}' learns {', '.join(settings.kinds)} without gradients of the network; "
            "plan one that learns lora or tokens."
        )
    dtype = float_type(config.dtype)
    return Job(unet, schedule, dtype, settings, PICTURES, CAPTIONS, config.fsdp)


def _network(weights: str) -> tuple[UNetConfig, Schedule]:
    if weights in UNETS and not Path(weights).is_dir():
        return UNetConfig.from_json(UNETS[weights]), Schedule.from_json(SCHEDULE)
    folder = find(weights)
    return read_config(folder, UNET), read_schedule(folder)
