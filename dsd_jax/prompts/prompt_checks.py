"""Checks that prompts are complete and fit a UNet, before anything is compiled."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from dsd_jax.config.score_spec import method_named
from dsd_jax.errors import UserError
from dsd_jax.models.unet_config import UNetConfig
from dsd_jax.prompts.prompt_params import KINDS, PROJECTIONS, PromptTree, attention_shapes

_Shapes = Mapping[str, Mapping[str, tuple[int, int]]] | None
_WEIGHTS = ("lse", "lse_uncond", "timesteps", "error")


def check_prompts(prompts: PromptTree, config: UNetConfig | None) -> None:
    """Check the names and shapes of all arrays of prompts.

    Args:
        prompts: a pytree as `prompt_params` describes it.
        config: of the UNet that they are for; without it shapes need only fit each other.

    Raises:
        UserError: a kind, a layer or a part is unknown or missing, or a shape is wrong.
    """
    shapes = attention_shapes(config) if config else None
    for kind, part in _entries(prompts, "the prompts"):
        if kind not in KINDS:
            raise UserError(f"prompts have a kind '{kind}'; expected {', '.join(KINDS)}.")
        if kind == "lora":
            _check_lora(part, shapes)
        elif kind == "tokens":
            _check_tokens(part, shapes)
        else:
            _check_weights(part, shapes, config)


def _check_lora(lora: Any, shapes: _Shapes) -> None:
    for path, updates in _entries(lora, "lora"):
        _check_layer("lora", path, shapes)
        for name, update in _entries(updates, f"lora for {path}"):
            if name not in PROJECTIONS:
                raise UserError(
                    f"the prompts have lora for '{name}' of {path}, expected some of "
                    f"{', '.join(PROJECTIONS)}."
                )
            where = f"lora for {path}/{name}"
            down, up = _pair(update, ("down", "up"), where)
            if down[1] != up[0] or not up[0]:
                raise UserError(
                    f"the prompts have {where} of shapes {down} and {up}; expected one rank of 1 "
                    "or more in the middle."
                )
            if shapes is not None:
                _check_shape(path, (down[0], up[1]), shapes[path][name])


def _check_tokens(tokens: Any, shapes: _Shapes) -> None:
    for path, token in _entries(tokens, "tokens"):
        _check_layer("tokens", path, shapes, cross=True)
        key, value = _pair(token, ("key", "value"), f"tokens for {path}")
        if shapes is not None:
            _check_shape(path, key[1:], shapes[path]["to_k"][1:])
            _check_shape(path, value[1:], shapes[path]["to_v"][1:])
        if key[0] != value[0] or not key[0]:
            raise UserError(
                f"the prompts have {key[0]} keys and {value[0]} values of tokens for {path}; "
                "expected equally many, 1 or more."
            )


def _check_weights(weights: Any, shapes: _Shapes, config: UNetConfig | None) -> None:
    for method, learned in _entries(weights, "weights"):
        method_named(method)
        for part, value in _entries(learned, f"weights of {method}"):
            if part not in _WEIGHTS:
                raise UserError(
                    f"the prompts have weights/{method}/{part}, expected some of "
                    f"{', '.join(_WEIGHTS)}."
                )
            if part in ("lse", "lse_uncond"):
                for path, heads in _entries(value, f"weights/{method}/{part}"):
                    _check_layer("weights", path, shapes, cross=True)
                    if config is not None:
                        _check_shape(path, _shape(heads, path), (_heads(path, config),))
            elif len(shape := _shape(value, part)) != (part == "timesteps") or 0 in shape:
                expected = "(T,)" if part == "timesteps" else "()"
                raise UserError(
                    f"the prompts have weights/{method}/{part} of shape {shape}, expected "
                    f"{expected}."
                )


def _heads(path: str, config: UNetConfig) -> int:
    """Return the number of heads of a layer."""
    side, number = path.split(".")[:2]
    if side == "mid_block":
        return config.heads[-1]
    return (config.heads if side == "down_blocks" else config.heads[::-1])[int(number)]


def _entries(node: Any, what: str) -> list[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        raise UserError(f"{what} of the prompts is no dict; expected what train writes.")
    return list(node.items())


def _pair(node: Any, names: tuple[str, str], what: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the shapes of the two matrices of a dict, which may have no other entries."""
    matrices = dict(_entries(node, what))
    if set(matrices) != set(names):
        raise UserError(
            f"the prompts have {' and '.join(sorted(matrices)) or 'nothing'} in {what}, expected "
            f"{' and '.join(names)}; copy them again."
        )
    first, second = (_shape(matrices[name], what) for name in names)
    for name, shape in zip(names, (first, second), strict=True):
        if len(shape) != 2:
            raise UserError(
                f"the prompts have {what}: '{name}' of shape {shape}, expected a matrix."
            )
    return first, second


def _shape(leaf: Any, what: str) -> tuple[int, ...]:
    if isinstance(leaf, Mapping | str | list | tuple) or leaf is None:
        raise UserError(f"{what} of the prompts is no array; expected what train writes.")
    return tuple(np.shape(leaf))


def _check_layer(kind: str, path: str, shapes: _Shapes, cross: bool = False) -> None:
    if shapes is not None and path not in shapes or cross and not path.endswith("attn2"):
        raise UserError(
            f"the prompts have {kind} for {path}, a layer that this model lacks; they were "
            "trained for another model."
        )


def _check_shape(path: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if shape != expected:
        raise UserError(
            f"the prompts for {path} have shape {shape}, the model's layer {expected}; they were "
            "trained for another model."
        )
