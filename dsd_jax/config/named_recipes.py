"""Recipes by name, for few pairs: what `dsd_jax.learn` learns, in a minute on two cores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dsd_jax.config.fields import did_you_mean
from dsd_jax.config.recipes import RecipeConfig
from dsd_jax.errors import UserError
from dsd_jax.io.validation import parse


@dataclass(frozen=True)
class NamedRecipe:
    """A recipe that users know by name.

    Attributes:
        title: what is learned, in a few words.
        fields: of `RecipeConfig` that differ from its defaults; methods are the user's.
    """

    title: str
    fields: Mapping[str, Any] = field(default_factory=dict)


_ADAPTED: Mapping[str, Any] = {
    "denoise": 3.0,
    "rank": 16,
    "batch": 16,
    "timesteps": 2,
    "learning_rate": 5e-4,  # at 4e-3, which 256 pairs take, 64 gain nothing
    "steps": 80,
    "check_every": 20,
}
RECIPES: Mapping[str, NamedRecipe] = {
    "adapted": NamedRecipe("LoRA that also learns to denoise the images: the style, too", _ADAPTED),
    "lora": NamedRecipe("LoRA on the score alone"),
    "tokens": NamedRecipe("tokens beside the caption's", {**_ADAPTED, "kinds": ("tokens",)}),
    "weights": NamedRecipe(
        "weights of layers, heads and timesteps in the score; fitted at once",
        {"kinds": ("weights",)},
    ),
    "authors": NamedRecipe(
        "the authors' LoRA: a hinge, one pair and timestep a step; slow",
        {
            "loss": "hinge",
            "margin": 0.1,
            "steps": 1000,
            "batch": 1,
            "timesteps": 1,
            "learning_rate": 1e-4,
            "check_every": 50,
        },
    ),
}


def named_recipe(name: str, **changes: Any) -> RecipeConfig:
    """Return the recipe called `name`, with other values for some fields of `RecipeConfig`.

    Raises:
        UserError: there is no such recipe or field, or a value is out of range.
    """
    if name not in RECIPES:
        known = ", ".join(RECIPES)
        hint = did_you_mean(str(name), list(RECIPES))
        ending = f"; {hint}" if hint else "."
        raise UserError(f"recipe is {name!r}, expected one of {known}{ending}")
    return parse(RecipeConfig, {**RECIPES[name].fields, **changes}, f"recipe {name}")
