"""Attention layers: self-attention, and cross-attention that returns its scores.

Reference: diffusers `models/attention_processor.py` (`AttnProcessor`) and `models/attention.py`
(`BasicTransformerBlock`). Parameter names are those of diffusers' Flax tree.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

# A static reduction of cross-attention logits (B, N, Q, L), float32, to what the caller wants.
Reduce = Callable[[jax.Array], jax.Array]
# Learned key and value tokens of one cross-attention layer: {"key": (M, F), "value": (M, F)}.
Tokens = Mapping[str, jax.Array]

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
    def __call__(self, hidden: jax.Array) -> jax.Array:
        features = hidden.shape[-1]
        query, key, value = (
            split_heads(
                nn.Dense(features, use_bias=False, dtype=self.dtype, name=name)(hidden), self.heads
            )
            for name in ("to_q", "to_k", "to_v")
        )
        if self.upcast:  # SD 2.x: 16-bit q·k overflows in some heads
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        out = attend(query, key, value).reshape(hidden.shape)
        return nn.Dense(features, dtype=self.dtype, name="to_out_0")(out)


class CrossAttention(nn.Module):
    """Multi-head attention of image positions to caption tokens, with its scores."""

    heads: int
    upcast: bool
    reduce: Reduce
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, hidden: jax.Array, states: jax.Array, captions: jax.Array, tokens: Tokens | None
    ) -> tuple[jax.Array, jax.Array]:
        """Attend from `hidden` (B, Q, F) to `states[captions]`; return new hidden and scores.

        Keys and values are projected once per caption of `states` (C, L, K), then dealt to the
        rows by `captions` (B,); `tokens` are appended to every caption's own.
        """
        features = hidden.shape[-1]
        query = nn.Dense(features, use_bias=False, dtype=self.dtype, name="to_q")(hidden)
        key = nn.Dense(features, use_bias=False, dtype=self.dtype, name="to_k")(states)
        value = nn.Dense(features, use_bias=False, dtype=self.dtype, name="to_v")(states)
        if tokens is not None:
            key, value = _append(key, tokens["key"]), _append(value, tokens["value"])
        query, key, value = (
            split_heads(x, self.heads) for x in (query, key[captions], value[captions])
        )
        if self.upcast:
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        logits = jnp.einsum("BQND,BLND->BNQL", query, key, preferred_element_type=jnp.float32)
        logits = logits * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        out = jnp.einsum("BNQL,BLND->BQND", weights, value).reshape(hidden.shape)
        return nn.Dense(features, dtype=self.dtype, name="to_out_0")(out), self.reduce(logits)


def _append(states: jax.Array, tokens: jax.Array) -> jax.Array:
    """Append learned tokens (M, F) to every caption's (C, L, F)."""
    tokens = jnp.broadcast_to(tokens.astype(states.dtype), (states.shape[0], *tokens.shape))
    return jnp.concatenate([states, tokens], axis=1)


class GEGLU(nn.Module):
    """Gated linear unit with exact (erf) GELU; diffusers calls its projection `proj`."""

    features: int
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        hidden = nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(hidden)
        hidden, gate = jnp.split(hidden, 2, axis=-1)
        return hidden * jax.nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """The transformer block's MLP, four times as wide inside."""

    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> jax.Array:
        features = hidden.shape[-1]
        hidden = GEGLU(4 * features, self.dtype, name="net_0")(hidden)
        return nn.Dense(features, dtype=self.dtype, name="net_2")(hidden)


class TransformerBlock(nn.Module):
    """Self-attention, cross-attention, feed-forward; all pre-norm and residual."""

    heads: int
    upcast: bool
    reduce: Reduce
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, hidden: jax.Array, states: jax.Array, captions: jax.Array, tokens: Tokens | None
    ) -> tuple[jax.Array, jax.Array]:
        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        hidden += SelfAttention(self.heads, self.upcast, self.dtype, name="attn1")(
            norm("norm1")(hidden)
        )
        # Here captions first matter: what came before was shared by all captions of an image.
        hidden = repeat_rows(hidden, captions.shape[0])
        attn2 = CrossAttention(self.heads, self.upcast, self.reduce, self.dtype, name="attn2")
        out, scores = attn2(norm("norm2")(hidden), states, captions, tokens)
        hidden += out
        return hidden + FeedForward(self.dtype, name="ff")(norm("norm3")(hidden)), scores


class Transformer(nn.Module):
    """A spatial transformer (diffusers `Transformer2DModel`) over a feature map (B, H, W, F)."""

    heads: int
    depth: int
    groups: int
    linear: bool
    upcast: bool
    reduce: Reduce
    dtype: jnp.dtype

    @nn.compact
    def __call__(
        self, x: jax.Array, states: jax.Array, captions: jax.Array, tokens: Mapping[str, Tokens]
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Return the new feature map and `{"transformer_blocks.0.attn2": scores, ...}`."""
        h, w, features = x.shape[1:]
        hidden = nn.GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        hidden = self._project("proj_in", hidden, features).reshape(x.shape[0], h * w, features)
        scores = {}
        for i in range(self.depth):
            block = TransformerBlock(
                self.heads, self.upcast, self.reduce, self.dtype, name=f"transformer_blocks_{i}"
            )
            path = f"transformer_blocks.{i}.attn2"
            hidden, scores[path] = block(hidden, states, captions, tokens.get(path))
        hidden = hidden.reshape(-1, h, w, features)
        return repeat_rows(x, hidden.shape[0]) + self._project("proj_out", hidden, features), scores

    def _project(self, name: str, x: jax.Array, features: int) -> jax.Array:
        # The same map either way; SD 1.x stores it as a 1x1 convolution, SD 2.x as a matrix.
        if self.linear:
            return nn.Dense(features, dtype=self.dtype, name=name)(x)
        return nn.Conv(features, (1, 1), dtype=self.dtype, name=name)(x)
