"""Use of trained prompts: with the method, timesteps, layers and weights they were learned for.

A prompts folder says what it was learned for (`about_prompts`). Scores take their method and number
of timesteps from there; anything else is refused, unless the user insists. Prompts that say nothing
of themselves, such as converted ones, go with everything.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.prompts.about import AboutPrompts

if TYPE_CHECKING:
    from dsd_jax.diffusion.pipeline import Model

DEFAULT_METHOD = "dsd"
DEFAULT_TIMESTEPS = 10
_INSIST = "or insist with --force (force=True in Python)"


def about(prompts: Mapping[str, Any] | str | Path | None) -> AboutPrompts:
    """Return what prompts say of themselves: nothing, where they are None or a pytree.

    Raises:
        UserError: a folder holds no prompts, or its `prompts.json` is missing or something else.
    """
    if prompts is None or isinstance(prompts, Mapping):
        return AboutPrompts()
    from dsd_jax.prompts.prompt_files import check_there, read_about  # heavy

    check_there(prompts)
    return read_about(prompts)


def score_settings(
    prompts: Mapping[str, Any] | str | Path | None,
    method: str | None,
    timesteps: int | None,
    *,
    force: bool = False,
) -> tuple[str, int]:
    """Return the method and the number of timesteps to score with.

    Args:
        prompts: a folder, a pytree or None.
        method: as asked for; None is the prompts' own, or "dsd" where they have none.
        timesteps: as asked for; None is the prompts' own number, or 10 where they have none.
        force: whether other ones than the prompts' own are allowed.

    Raises:
        UserError: others than the prompts' own are asked for.
    """
    own = about(prompts)
    default = DEFAULT_METHOD if DEFAULT_METHOD in own.methods else next(iter(own.methods), None)
    method = method or default or DEFAULT_METHOD
    if own.methods and method not in own.methods and not force:
        raise UserError(
            f"{prompts} was learned for {' and '.join(own.methods)}, not for {method}: leave the "
            f"method out, take one of its own, {_INSIST}."
        )
    count = timesteps_asked(own.timesteps)
    if timesteps is None:
        timesteps = count or DEFAULT_TIMESTEPS
    if count and not same_timesteps(timesteps, count) and not force:
        raise UserError(
            f"{prompts} was learned at {count} timesteps, not at {timesteps}: leave the number "
            f"out, {_INSIST}."
        )
    return method, timesteps


def same_timesteps(one: int, other: int) -> bool:
    """Return whether two numbers of timesteps ask for the same timesteps, as 49 and 50 do."""
    from dsd_jax.diffusion import noising  # heavy

    return np.array_equal(noising.timesteps(one), noising.timesteps(other))


def timesteps_asked(timesteps: Sequence[int] | None) -> int | None:
    """Return the number for which `diffusion.timesteps` gives these; None where there are none."""
    if not timesteps:
        return None
    from dsd_jax.diffusion import noising  # heavy

    for count in range(len(timesteps), 1001):
        if np.array_equal(noising.timesteps(count), timesteps):
            return count
    raise UserError(
        f"timesteps {list(timesteps)} of the prompts are no set that dsd_jax scores at."
    )


def check_model(
    prompts: Mapping[str, Any] | str | Path | None, model: "Model", *, force: bool = False
) -> None:
    """Check that prompts were learned on these weights; `force` allows others.

    Weights are compared in the dtype that the prompts were learned in. Where the model has a
    coarser one, they can't be, and its name has to be the same.

    Raises:
        UserError: the model has other weights.
    """
    from dsd_jax.models.weights_digest import weights_digest  # heavy

    own = about(prompts)
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
            f"{prompts} was learned on other weights than those of {model.name}: name the model "
            f"that it was learned on, {own.weights}, {_INSIST}."
        )


def check_layers(
    prompts: str | Path, layers: Sequence[str], *, field: str = "layers", force: bool = False
) -> None:
    """Check that the layers whose attention scores count are those that prompts were learned for.

    Raises:
        UserError: they are not.
    """
    own = about(prompts).layers
    if own and tuple(own) != tuple(layers) and not force:
        raise UserError(
            f"{prompts} was learned with other {field} than are scored: set {field} to "
            f"{','.join(own)}, {_INSIST}."
        )
