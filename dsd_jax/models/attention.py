"""Attention layers: self-attention, and cross-attention that returns its scores.

Reference: diffusers `models/attention_processor.py` (`AttnProcessor`). Parameter names are those of
diffusers' Flax tree.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name

from dsd_jax.models.block_policy import ATTENDED

# A static reduction of cross-attention logits (B, N, Q, L), float32, to what the caller wants.
Reduce = Callable[[jax.Array], jax.Array]
# What is learned of one attention layer: any of {"to_q" | "to_k" | "to_v" | "to_out": {"down":
# (F, r), "up": (r, F')}, "tokens": {"key": (M, F), "value": (M, F)}}.
Learned = Mapping[str, Any]

_QUERY_CHUNK = 512


def mean_lse(logits: jax.Array) -> jax.Array:
    """Mean over positions of the logsumexp over tokens: (B, N, Q, L) -> (B, N), float32.

    The authors' attention score of one layer before its mean over heads (`METHOD`: paper, eq. 6).
    """
    return jax.nn.logsumexp(logits, axis=-1).mean(axis=-1)


def attention_maps(logits: jax.Array) -> jax.Array:
    """Attention probabilities, mean over heads: (B, N, Q, L) -> (B, L, Q), as DAAM draws them."""
    return jax.nn.softmax(logits, axis=-1).mean(axis=1).swapaxes(1, 2)


def repeat_rows(x: jax.Array, rows: int) -> jax.Array:
    """Repeat each row so that there are `rows`: the captions of one image stand side by side."""
    return x if x.shape[0] == rows else jnp.repeat(x, rows // x.shape[0], axis=0)


def deal(x: jax.Array, rows: int) -> jax.Array:
    """What S sets of J captions have, (S, J, ...), to `rows` rows: (rows, ...).

    A set serves its part of the latents, each latent with all J captions side by side. A broadcast
    instead of a gather, so that where rows are split over devices each needs its own sets only.
    """
    sets, width = x.shape[:2]
    times = rows // (sets * width)
    return jnp.broadcast_to(x[:, None], (sets, times, *x.shape[1:])).reshape(rows, *x.shape[2:])


class Project(nn.Module):
    """A matrix product, and what is learned on top of it: x W + (x down) up.

    The update is computed beside the frozen product and not merged into W: 16-bit weights would
    round small updates away, and the gradient of all of W would be computed only for `down` and
    `up`. It is computed in float32, and recomputed for the gradient rather than kept.
    """

    features: int
    use_bias: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, x: jax.Array, update: Mapping[str, jax.Array] | None) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        out = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            out += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if update is None:
            return out
        return out + _low_rank(x, update["down"], update["up"]).astype(self.dtype)


@jax.checkpoint
def _low_rank(x: jax.Array, down: jax.Array, up: jax.Array) -> jax.Array:
    return (x.astype(jnp.float32) @ down) @ up


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """(B, Q, N*D) -> (B, Q, N, D)."""
    return x.reshape(*x.shape[:2], heads, -1)


def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Plain attention in (B, Q, N, D); logits and softmax in float32 whatever the dtype."""
    logits = jnp.einsum("BQND,BLND->BNQL", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
    return jnp.einsum("BNQL,BLND->BQND", weights, value)


def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Self-attention over (B, Q, N, D), in chunks of queries once the logits would be large.

    At 64x64 latents the logits of one row are 335 MB; a chunk is 512 queries against all keys,
    recomputed for the gradient instead of kept.
    """
    b, q, n, d = query.shape
    if q <= 2 * _QUERY_CHUNK or q % _QUERY_CHUNK:
        return _attend(query, key, value)
    chunks = query.reshape(b, q // _QUERY_CHUNK, _QUERY_CHUNK, n, d).swapaxes(0, 1)
    out = jax.lax.map(jax.checkpoint(lambda chunk: _attend(chunk, key, value)), chunks)
    return out.swapaxes(0, 1).reshape(b, q, n, d)


class SelfAttention(nn.Module):
    """Multi-head attention of a hidden state (B, Q, F) to itself."""

    heads: int
    upcast: bool
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array, learned: Learned) -> jax.Array:
        features = hidden.shape[-1]
        query, key, value = (
            split_heads(
                Project(features, False, self.dtype, name=name)(hidden, learned.get(name)),
                self.heads,
            )
            for name in ("to_q", "to_k", "to_v")
        )
        if self.upcast:  # SD 2.x: 16-bit q·k overflows in some heads
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        out = checkpoint_name(attend(query, key, value), ATTENDED).reshape(hidden.shape)
        return Project(features, True, self.dtype, name="to_out_0")(out, learned.get("to_out"))


class CrossAttention(nn.Module):
    """Multi-head attention of image positions to caption tokens, with its scores."""

    heads: int
    upcast: bool
    reduce: Reduce
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, hidden: jax.Array, states: jax.Array, learned: Learned
    ) -> tuple[jax.Array, jax.Array]:
        """Attend from `hidden` (B, Q, F) to `states` (S, J, L, K); return new hidden and scores.

        Keys and values are projected once per caption, then dealt to the rows.
        """
        features = hidden.shape[-1]
        query = Project(features, False, self.dtype, name="to_q")(hidden, learned.get("to_q"))
        key = Project(features, False, self.dtype, name="to_k")(states, learned.get("to_k"))
        value = Project(features, False, self.dtype, name="to_v")(states, learned.get("to_v"))
        if tokens := learned.get("tokens"):
            key, value = _append(key, tokens["key"]), _append(value, tokens["value"])
        key, value = deal(key, hidden.shape[0]), deal(value, hidden.shape[0])
        query, key, value = (split_heads(x, self.heads) for x in (query, key, value))
        if self.upcast:
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        logits = jnp.einsum("BQND,BLND->BNQL", query, key, preferred_element_type=jnp.float32)
        logits = logits * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        out = jnp.einsum("BNQL,BLND->BQND", weights, value)
        out = checkpoint_name(out, ATTENDED).reshape(hidden.shape)
        out = Project(features, True, self.dtype, name="to_out_0")(out, learned.get("to_out"))
        return out, self.reduce(logits)


def _append(states: jax.Array, tokens: jax.Array) -> jax.Array:
    """Append learned tokens (M, F) to every caption's (S, J, L, F)."""
    tokens = jnp.broadcast_to(tokens.astype(states.dtype), (*states.shape[:2], *tokens.shape))
    return jnp.concatenate([states, tokens], axis=2)
