"""Learning prompts from pairs of images and captions in memory, in one call."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dsd_jax.benchmarks.encoded_items import encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.config import score_spec
from dsd_jax.config.named_recipes import named_recipe
from dsd_jax.config.recipes import RecipeConfig
from dsd_jax.data.examples import Examples
from dsd_jax.data.given_pairs import given_examples
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.errors import UserError
from dsd_jax.few_shot.live_curve import LiveCurve
from dsd_jax.few_shot.prompt_training import train_prompts
from dsd_jax.few_shot.support_set import (
    Recipe,
    SupportSet,
    cache_frozen_outputs,
    outputs_read_by,
)
from dsd_jax.io.images import ImageInput
from dsd_jax.io.progress import Stage, Work
from dsd_jax.io.terminal import in_notebook, say, shows_progress
from dsd_jax.matching.score_functions import chosen_layers
from dsd_jax.prompts.learned_prompts import Prompts
from dsd_jax.prompts.prompt_metadata import PromptMetadata
from dsd_jax.training.loop import LoopOptions

_MOST_SEED = 2_000_000  # a thousand seeds of 32 bits for the noise of each


def learn(
    model: Model,
    images: Sequence[ImageInput] | np.ndarray,
    captions: Sequence[str],
    *,
    wrong: Sequence[Any] | None = None,
    recipe: str = "adapted",
    method: str = "relative",
    timesteps: int = 10,
    steps: int | None = None,
    noises: int = 4,
    layers: Sequence[str] | str | None = None,
    seed: int = 0,
    progress: bool | None = None,
    **changes: Any,
) -> Prompts:
    """Learn prompts from n pairs of images and captions, and say whether that was worth it.

    A part of the pairs is held out: their loss says when to stop, and prompts whose gain on them
    does not exceed its error are not kept: the frozen model stays, and `prompts.verdict` says so.
    The model itself is left as it is.

    Args:
        model: from `dsd_jax.load`.
        images: n paths, PIL images or uint8 arrays (H, W, 3).
        captions: n captions; captions[i] fits images[i].
        wrong: for each pair a caption that does not fit its image, or an image that does not fit
            its caption, or a list of either; equally many of one sort for all. None draws captions
            of other images. The more alike right and wrong are, the more is learned.
        recipe: a name in `config.named_recipes.RECIPES`.
        method: whose scores are learned for, a name in `dsd_jax.list_methods()`.
        timesteps: number of noise levels of its scores.
        steps: at most, of the optimizer; by default the recipe's.
        noises: samples of noise per pair and timestep.
        layers: layers whose attention scores count: paths, "all", or None for the authors' choice.
        seed: of the held-out pairs, the draws and the initial values.
        progress: whether to show progress, with a live curve in a notebook; by default in a
            terminal and in a notebook.
        changes: other values for fields of the recipe, such as `learning_rate` or `rank`.

    Raises:
        UserError: an argument is not of this kind, or an image cannot be read.
    """
    chosen = {"methods": (method,)} | ({} if steps is None else {"steps": steps}) | changes
    settings = _check(model, recipe, chosen, noises=noises, seed=seed)
    paths, columns = chosen_layers(model.unet, layers), score_spec.timesteps(timesteps)
    on_model, shown = settings.on_layers(paths), shows_progress(progress)
    examples = given_examples(images, captions, wrong, seed=seed)
    frozen = partial(cache_frozen_outputs, timesteps=columns, seed=seed, noises=noises)
    support = _support_set(model, examples, on_model, frozen, shown=shown)
    curve = LiveCurve(settings.steps, shown=shown and in_notebook())
    options = LoopOptions("learning", progress=shown, log_every=10, on_check=curve.add)
    trained = train_prompts(model, support, on_model, seed, options=options)
    how = {"recipe_name": recipe, "layers": paths, "noises": noises, "seed": seed}
    about = _about(model, support, settings) | how | trained.record()
    learned = Prompts(trained.prompts, PromptMetadata.model_validate(about))
    curve.end(learned.history)
    if shown:
        say(f"learning: {learned.verdict}")
    return learned


def _support_set(
    model: Model,
    examples: Examples,
    recipe: Recipe,
    frozen: Callable[..., SupportSet],
    *,
    shown: bool,
) -> SupportSet:
    """Encode the pairs and run the frozen model on them, by `frozen`."""
    outputs = outputs_read_by(model.unet, [recipe])
    with Stage("looking at the pairs", 1, shown=shown) as stage:
        with stage.waiting_for("the encoders"):
            items = encode(Encoders(model), examples, range(examples.count))
        return frozen(model, items, outputs=outputs, work=Work(stage, 1))


def _about(model: Model, support: SupportSet, recipe: RecipeConfig) -> dict[str, Any]:
    """Return what prompts remember of the model, the pairs and the recipe that they are from."""
    return {
        "weights": model.name,
        "weights_digest": model.weights_digest,
        "dtype": model.dtype.name,
        "recipe": recipe.model_dump(mode="json"),
        "timesteps": support.timesteps.tolist(),
        "shots": support.items.count,
    }


def _check(
    model: Model, recipe: str, fields: Mapping[str, Any], *, noises: int, seed: int
) -> RecipeConfig:
    """Check the arguments of `learn` as far as that needs no image; return the recipe."""
    if not isinstance(model, Model):
        raise UserError(f"model is {model!r}; expected what dsd_jax.load returns.")
    for name, value, least, most in (("noises", noises, 1, 1000), ("seed", seed, 0, _MOST_SEED)):
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise UserError(
                f"{name} is {value!r}; expected a whole number from {least} to {most:,}."
            )
    return named_recipe(recipe, **fields)
