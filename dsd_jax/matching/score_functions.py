"""Scores: what a matching method makes of the terms of a forward pass. Higher is a better match.

Every method is one formula, linear in what it reads off the terms:

    score = sum_t tau_t [ sum_layer,head w . lse  +  sum_layer,head u . lse_uncond  +  beta e(t) ]

with tau = 1/T. `attention` reads the scores, `noise`, `itm` and `relative` the errors, `dsd`
both (METHOD: paper, eq. 5 to 8). The prompts kind `weights` learns differences from these weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.config.score_spec import method_named
from dsd_jax.errors import UserError
from dsd_jax.matching.forward import OutputSpec, Terms, cross_attention_layers
from dsd_jax.models.unet_config import UNetConfig

# (error (..., T), error of the empty caption, broadcast alike) -> what a method reads off them.
Formula = Callable[[jax.Array, jax.Array], jax.Array]


_ERROR_TERMS: Mapping[str, Formula] = {
    "noise": lambda e, u: -jnp.square(e),
    "itm": lambda e, u: jnp.square(u) - jnp.square(e),
    "relative": lambda e, u: 1.0 - jnp.square(e / u),
    "dsd": lambda e, u: u - e,
}


def error_term(name: str, terms: Terms) -> jax.Array | None:
    """Return the part of a method's score that prediction errors make, (I, C, T), if it has one."""
    method = method_named(name)
    if not method.error:
        return None
    if method.norm:
        return -terms.norms[method.norm]
    return _ERROR_TERMS[name](terms.error, terms.error_uncond[:, None] if method.uncond else None)


def chosen_layers(config: UNetConfig, layers: Sequence[str] | str | None = None) -> tuple[str, ...]:
    """The layers whose scores are averaged.

    Args:
        config: the UNet's.
        layers: paths; "all"; or None, the authors' choice: of the down, middle and up blocks each
            the last one with cross-attention, all its transformers, the last block of each.

    Raises:
        UserError: a path is not a cross-attention layer; the message lists those there are.
    """
    every = cross_attention_layers(config)
    if layers is None:
        return _authors_layers(every)
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    layers = every if layers == ("all",) else layers
    for layer in layers:
        if layer not in every:
            raise UserError(
                f"layer '{layer}' is unknown; expected 'all' or some of {', '.join(every)}."
            )
    if not layers:
        raise UserError("no layer chosen; expected 'all' or at least one path.")
    return tuple(layers)


def _authors_layers(every: Sequence[str]) -> tuple[str, ...]:
    chosen: dict[str, str] = {}
    for side in ("down_blocks", "mid_block", "up_blocks"):
        here = [path for path in every if path.startswith(side)]
        block = here[-1].partition(".attentions.")[0] if here else ""
        for path in here:
            transformer, _, _ = path.partition(".transformer_blocks.")
            if path.startswith(f"{block}."):
                chosen[transformer] = path  # later blocks of a transformer replace earlier ones
    return tuple(chosen.values())


def required_outputs(
    config: UNetConfig, name: str, layers: Sequence[str], weights: Mapping[str, Any] | None = None
) -> OutputSpec:
    """The terms that a score reads; learned weights read what they have weights for."""
    method, learned = method_named(name), weights or {}
    read = {*(layers if method.attention else ()), *learned.get("lse", ())}
    read |= set(learned.get("lse_uncond", ()))
    ordered = tuple(layer for layer in cross_attention_layers(config) if layer in read)
    uncond = method.uncond or bool(learned.get("lse_uncond"))
    norms = (method.norm,) if method.norm else ()
    return OutputSpec(ordered, method.error, uncond, norms)


def union(config: UNetConfig, needed: Iterable[OutputSpec]) -> OutputSpec:
    """What serves all of them."""
    needed = list(needed)
    layers = {layer for wanted in needed for layer in wanted.layers}
    return OutputSpec(
        tuple(layer for layer in cross_attention_layers(config) if layer in layers),
        any(wanted.error for wanted in needed),
        any(wanted.uncond for wanted in needed),
        tuple(dict.fromkeys(norm for wanted in needed for norm in wanted.norms)),
    )


def score(
    terms: Terms,
    name: str,
    layers: Sequence[str],
    weights: Mapping[str, Any] | None = None,
) -> jax.Array:
    """The score of every pair.

    Args:
        terms: of I pictures, C captions and T timesteps.
        name: of the method.
        layers: whose attention scores are averaged, from `chosen_layers`.
        weights: the prompts kind `weights`, if learned.

    Returns:
        (I, C) float32.
    """
    return mean_over_timesteps(
        jnp.asarray(per_timestep_scores(terms, name, layers, weights)), weights
    )


def mean_over_timesteps(steps: jax.Array, weights: Mapping[str, Any] | None = None) -> jax.Array:
    """The mean over timesteps, or with what is learned instead: (..., T) -> (...)."""
    tau = jnp.full(steps.shape[-1:], 1.0 / steps.shape[-1])
    if weights and "timesteps" in weights:
        tau += _same_count(weights["timesteps"], steps.shape[-1])
    return jnp.sum(steps * tau, axis=-1)


def _same_count(learned: jax.Array, count: int) -> jax.Array:
    if learned.shape[0] != count:
        raise UserError(
            f"the prompts have weights for {learned.shape[0]} timesteps but {count} are scored; "
            "score with the timesteps they were trained with."
        )
    return learned


def per_timestep_scores(
    terms: Terms, name: str, layers: Sequence[str], weights: Mapping[str, Any] | None = None
) -> jax.Array:
    """The score of every pair at every timestep: (I, C, T) float32."""
    method, learned = method_named(name), weights or {}
    total = 0.0
    if method.attention:
        total = jnp.mean(jnp.stack([jnp.mean(terms.lse[x], -1) for x in layers]), axis=0)
    for layer, weight in learned.get("lse", {}).items():
        total += jnp.matmul(terms.lse[layer], weight)
    for layer, weight in learned.get("lse_uncond", {}).items():
        total += jnp.matmul(terms.lse_uncond[layer], weight)[:, None]
    if method.error:
        total += (1.0 + learned.get("error", 0.0)) * error_term(name, terms)
    return total


def authors_attention(terms: Terms, layers: Sequence[str]) -> jax.Array:
    """The attention score as the authors' code has it at batch size 1: (I, C, T).

    Their mean runs over the empty caption's row too (`unet`, `AttnProcessor`); for parity only.
    """
    rows = [(terms.lse[x].mean(-1) + terms.lse_uncond[x].mean(-1)[:, None]) / 2 for x in layers]
    return jnp.mean(jnp.stack(rows), axis=0)


def check_finite(scores: np.ndarray, weights: str) -> np.ndarray:
    """Return scores of any shape as they are.

    Args:
        scores: float array.
        weights: name of the model that gave them.

    Raises:
        UserError: some are NaN or infinite.
    """
    broken = int(np.size(scores) - np.isfinite(scores).sum())
    if broken:
        raise UserError(
            f"{broken} of {np.size(scores)} scores by {weights} are not finite; the weights are "
            "damaged or too large for their dtype: fetch the model again, or load it as float32."
        )
    return scores
