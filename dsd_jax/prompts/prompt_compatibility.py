"""Use of prompts: with the method, timesteps, layers and weights that they were learned for.

Scores take their method and number of timesteps from the metadata; other ones, other layers and
other weights are refused unless forced. Prompts without metadata, such as converted ones, can be
used with any of them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from dsd_jax.config import score_spec
from dsd_jax.errors import UserError
from dsd_jax.prompts.prompt_metadata import GivenPrompts, Learned, PromptMetadata

if TYPE_CHECKING:
    from dsd_jax.diffusion.pipeline import Model

DEFAULT_METHOD = "dsd"
DEFAULT_TIMESTEPS = 10
_INSIST = "or insist with --force (force=True in Python)"


def metadata_of(prompts: GivenPrompts) -> PromptMetadata:
    """Return the metadata of prompts; empty for a pytree or None.

    Raises:
        UserError: a folder holds no prompts, or its `prompts.json` is missing or not valid.
    """
    if isinstance(prompts, Learned):
        return prompts.metadata
    if prompts is None or isinstance(prompts, Mapping):
        return PromptMetadata()
    from dsd_jax.prompts.prompt_files import check_holds_prompts, read_metadata  # heavy

    check_holds_prompts(prompts)
    return read_metadata(prompts)


def score_settings(
    prompts: GivenPrompts,
    method: str | None,
    timesteps: int | None,
    *,
    force: bool = False,
) -> tuple[str, int]:
    """Return the method and the number of timesteps to score with.

    Args:
        prompts: learned prompts, their folder, a pytree or None.
        method: None for the one that the prompts were learned for, or "dsd" if that is unknown.
        timesteps: None for as many as the prompts were learned at, or 10 if that is unknown.
        force: whether others than the prompts were learned for are allowed.

    Raises:
        UserError: the prompts were learned for another method or number of timesteps.
    """
    own = metadata_of(prompts)
    default = DEFAULT_METHOD if DEFAULT_METHOD in own.methods else next(iter(own.methods), None)
    method = method or default or DEFAULT_METHOD
    if own.methods and method not in own.methods and not force:
        raise UserError(
            f"{_name(prompts)} learned for {' and '.join(own.methods)}, not for {method}: leave "
            f"the method out, take one of these, {_INSIST}."
        )
    count = timesteps_asked(own.timesteps)
    if timesteps is None:
        timesteps = count or DEFAULT_TIMESTEPS
    if count and not same_timesteps(timesteps, count) and not force:
        raise UserError(
            f"{_name(prompts)} learned at {count} timesteps, not at {timesteps}: leave the number "
            f"out, {_INSIST}."
        )
    return method, timesteps


def _name(prompts: GivenPrompts) -> str:
    """Return the subject and the verb of a sentence about prompts."""
    return "the prompts were" if isinstance(prompts, Learned) else f"{prompts} was"


def same_timesteps(one: int, other: int) -> bool:
    """Return whether two numbers of timesteps give the same timesteps, as 49 and 50 do."""
    return np.array_equal(score_spec.timesteps(one), score_spec.timesteps(other))


def timesteps_asked(timesteps: Sequence[int] | None) -> int | None:
    """Return the number for which `score_spec.timesteps` gives these; None if no number does."""
    if not timesteps:
        return None
    for count in range(len(timesteps), 1001):
        if np.array_equal(score_spec.timesteps(count), timesteps):
            return count
    raise UserError(
        f"timesteps {list(timesteps)} of the prompts are no set that dsd_jax scores at."
    )


def check_model(prompts: GivenPrompts, model: "Model", *, force: bool = False) -> None:
    """Check that prompts were learned on the params of this model; `force` allows others.

    Params are compared in the dtype that the prompts were learned in. Where the model has a coarser
    one, that is impossible, and the names of the models are compared.

    Raises:
        UserError: the model has other params.
    """
    from dsd_jax.models.params import weights_digest  # heavy

    own = metadata_of(prompts)
    if force or not own.weights_digest:
        return
    dtype = np.dtype(own.dtype or model.dtype.name)
    if dtype == model.dtype:
        same = model.weights_digest == own.weights_digest
    elif dtype.itemsize > model.dtype.itemsize:
        same = own.weights == model.name
    else:
        same = weights_digest(model.params, dtype) == own.weights_digest
    if not same:
        raise UserError(
            f"{_name(prompts)} learned on other weights than those of {model.name}: name the model "
            f"they belong to, {own.weights}, {_INSIST}."
        )


def check_layers(
    prompts: GivenPrompts, layers: Sequence[str], *, field: str = "layers", force: bool = False
) -> None:
    """Check that prompts were learned with these layers' attention scores; `force` allows others.

    Raises:
        UserError: they were learned with other layers.
    """
    own = metadata_of(prompts).layers
    if own and tuple(own) != tuple(layers) and not force:
        raise UserError(
            f"{_name(prompts)} learned with other {field} than are scored: set {field} to "
            f"{','.join(own)}, {_INSIST}."
        )
