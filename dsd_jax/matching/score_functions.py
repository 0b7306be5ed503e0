"""Score functions: from the UNet's outputs to a score per pair. Higher is a better match.

Every method is one formula, linear in the outputs that it reads:

    score = sum_t tau_t [ sum_layer,head w . lse  +  sum_layer,head u . lse_uncond  +  beta e(t) ]

with tau = 1/T. `attention` reads the attention scores lse, `noise`, `itm` and `relative` the
prediction errors, `dsd` both (METHOD: paper, eq. 5 to 8). `config.score_spec.METHODS` lists the
methods; prompts of the kind `weights` are learned differences from these weights.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from dsd_jax.config.score_spec import method_named
from dsd_jax.diffusion.pipeline import Array
from dsd_jax.errors import UserError
from dsd_jax.matching.forward import OutputSpec, Terms, cross_attention_layers
from dsd_jax.models.unet_config import UNetConfig

# From the error, (I, C, T), and the empty caption's, (I, 1, T) or None, to e(t).
Formula = Callable[[Any, Any], Array]
_ERROR_TERMS: Mapping[str, Formula] = {
    "noise": lambda e, u: -jnp.square(e),
    "itm": lambda e, u: jnp.square(u) - jnp.square(e),
    "relative": lambda e, u: 1.0 - jnp.square(e / u),
    "dsd": lambda e, u: u - e,
}


def error_term(name: str, terms: Terms) -> Float[Array, "I C T"] | None:
    """Return the part of a method's score that prediction errors make, if it has one."""
    method = method_named(name)
    if not method.error:
        return None
    if method.norm:
        return -jnp.asarray(terms.norms[method.norm])
    uncond = terms.error_uncond[:, None] if terms.error_uncond is not None else None
    return _ERROR_TERMS[name](terms.error, uncond)


def chosen_layers(config: UNetConfig, layers: Sequence[str] | str | None = None) -> tuple[str, ...]:
    """Return the layers whose attention scores are averaged.

    Args:
        config: of the UNet.
        layers: paths; "all"; or None for the authors' choice: the last block with cross-attention
            of each of the down, middle and up blocks, and the last layer of all its transformers.

    Raises:
        UserError: a path is not a cross-attention layer; the message lists those there are.
    """
    known = cross_attention_layers(config)
    if layers is None:
        return _authors_layers(known)
    layers = (layers,) if isinstance(layers, str) else tuple(layers)
    layers = known if layers == ("all",) else layers
    for layer in layers:
        if layer not in known:
            raise UserError(
                f"layer '{layer}' is unknown; expected 'all' or some of {', '.join(known)}."
            )
    if not layers:
        raise UserError("no layer chosen; expected 'all' or at least one path.")
    return tuple(layers)


def _authors_layers(known: Sequence[str]) -> tuple[str, ...]:
    chosen: dict[str, str] = {}
    for side in ("down_blocks", "mid_block", "up_blocks"):
        paths = [path for path in known if path.startswith(side)]
        block = paths[-1].partition(".attentions.")[0] if paths else ""
        for path in paths:
            transformer, _, _ = path.partition(".transformer_blocks.")
            if path.startswith(f"{block}."):
                chosen[transformer] = path  # later blocks of a transformer replace earlier ones
    return tuple(chosen.values())


def required_outputs(
    config: UNetConfig, name: str, layers: Sequence[str], weights: Mapping[str, Any] | None = None
) -> OutputSpec:
    """Return the outputs that a score reads, those that have learned weights included.

    Args:
        config: of the UNet.
        name: of the method.
        layers: whose attention scores are averaged.
        weights: learned weights of the method, if any.
    """
    method, learned = method_named(name), weights or {}
    read = {*(layers if method.attention else ()), *learned.get("lse", ())}
    read |= set(learned.get("lse_uncond", ()))
    ordered = tuple(layer for layer in cross_attention_layers(config) if layer in read)
    uncond = method.uncond or bool(learned.get("lse_uncond"))
    norms = (method.norm,) if method.norm else ()
    return OutputSpec(ordered, method.error, uncond, norms)


def union(config: UNetConfig, specs: Iterable[OutputSpec]) -> OutputSpec:
    """Return the spec of all outputs that any of `specs` asks for."""
    specs = list(specs)
    layers = {layer for spec in specs for layer in spec.layers}
    return OutputSpec(
        tuple(layer for layer in cross_attention_layers(config) if layer in layers),
        any(spec.error for spec in specs),
        any(spec.uncond for spec in specs),
        tuple(dict.fromkeys(norm for spec in specs for norm in spec.norms)),
    )


def score(
    terms: Terms,
    name: str,
    layers: Sequence[str],
    weights: Mapping[str, Any] | None = None,
) -> Float[jax.Array, "I C"]:
    """Return the score of every pair.

    Args:
        terms: outputs for I images, C captions and T timesteps.
        name: of the method.
        layers: whose attention scores are averaged, from `chosen_layers`.
        weights: learned weights of the method, if any.

    Returns:
        float32; higher is a better match.
    """
    scores = per_timestep_scores(terms, name, layers, weights)
    return mean_over_timesteps(jnp.asarray(scores), weights)


def mean_over_timesteps(
    scores: Float[Array, "*B T"], weights: Mapping[str, Any] | None = None
) -> Float[jax.Array, "*B"]:
    """Return the mean over timesteps, or the sum by learned weights.

    Raises:
        UserError: there are learned weights of another number of timesteps.
    """
    count = scores.shape[-1]
    tau = jnp.full(count, 1.0 / count)
    if weights and "timesteps" in weights:
        learned = weights["timesteps"]
        if learned.shape[0] != count:
            raise UserError(
                f"the prompts have weights for {learned.shape[0]} timesteps but {count} are "
                "scored; score with the timesteps they were trained with."
            )
        tau += learned
    return jnp.sum(scores * tau, axis=-1)


def per_timestep_scores(
    terms: Terms, name: str, layers: Sequence[str], weights: Mapping[str, Any] | None = None
) -> Float[Array, "I C T"]:
    """Return the score of every pair at every timestep, float32; arguments as `score`."""
    method, learned = method_named(name), weights or {}
    total: Any = 0.0
    if method.attention:
        total = jnp.mean(jnp.stack([jnp.mean(terms.lse[x], -1) for x in layers]), axis=0)
    for layer, weight in learned.get("lse", {}).items():
        total += jnp.matmul(terms.lse[layer], weight)
    for layer, weight in learned.get("lse_uncond", {}).items():
        total += jnp.matmul(terms.lse_uncond[layer], weight)[:, None]
    if method.error:
        total += (1.0 + learned.get("error", 0.0)) * error_term(name, terms)
    return total


def authors_attention(terms: Terms, layers: Sequence[str]) -> Float[Array, "I C T"]:
    """Return the attention score of the authors' code at batch size 1.

    Its mean is over the empty caption's row too (`unet`, `AttnProcessor`); for parity only.
    """
    rows = [(terms.lse[x].mean(-1) + terms.lse_uncond[x].mean(-1)[:, None]) / 2 for x in layers]
    return jnp.mean(jnp.stack(rows), axis=0)


def check_finite(
    scores: Shaped[np.ndarray, "*shape"], weights: str
) -> Shaped[np.ndarray, "*shape"]:
    """Return `scores` by the model named `weights`.

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
