"""Attention layers with LoRA and learned tokens; cross-attention returns its reduced logits.

Reference: diffusers `models/attention_processor.py` (`AttnProcessor`). Parameter names are those of
diffusers' Flax tree.
"""

from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Shaped

from dsd_jax.models.block_policy import ATTENDED

# A static reduction of cross-attention logits (B, H, N, L), float32.
Reduce = Callable[[Array], Array]
# The adapter of one attention layer, any of: {"to_q" | "to_k" | "to_v" | "to_out": {"down": (D, r),
# "up": (r, D')}, "tokens": {"key": (M, D), "value": (M, D)}}, M learned tokens.
AdapterParams = Mapping[str, Any]

_QUERY_CHUNK = 512


def mean_lse(logits: Float[Array, "B H N L"]) -> Float[Array, "B H"]:
    """Return the mean over queries of the logsumexp over tokens, float32.

    The authors' attention score of one layer before its mean over heads (`METHOD`: paper, eq. 6).
    """
    return jax.nn.logsumexp(logits, axis=-1).mean(axis=-1)


def query_lse(logits: Float[Array, "B H N L"]) -> Float[Array, "B H N"]:
    """Return the logsumexp over tokens of every query."""
    return jax.nn.logsumexp(logits, axis=-1)


def attention_maps(logits: Float[Array, "B H N L"]) -> Float[Array, "B L N"]:
    """Return each token's probability at each query, every head counting alike.

    A head that hardly attends to a token may be the one that knows where it is. So what is averaged
    over heads is a head's probability as a multiple of its own mean over queries; the result has
    the mean of all. The plain mean, which DAAM plots, points at things half as often (`findings`).
    """
    maps = jax.nn.softmax(logits, axis=-1).swapaxes(2, 3)  # (B, H, L, N)
    means = maps.mean(axis=-1, keepdims=True)
    contrasts = maps / jnp.maximum(means, jnp.finfo(maps.dtype).tiny)
    return contrasts.mean(axis=1) * means.mean(axis=1)


def repeat_rows(x: Shaped[Array, "R *rest"], rows: int) -> Shaped[Array, "{rows} *rest"]:
    """Repeat each row in place so that there are `rows`: an image's captions are adjacent."""
    return x if x.shape[0] == rows else jnp.repeat(x, rows // x.shape[0], axis=0)


def broadcast_to_rows(x: Shaped[Array, "S J *rest"], rows: int) -> Shaped[Array, "{rows} *rest"]:
    """Broadcast values of S sets of J captions to rows.

    Consecutive latents share a set, and each latent meets its J captions in adjacent rows. A
    broadcast instead of a gather, so that where rows are sharded a device needs its own sets only.
    """
    sets, width = x.shape[:2]
    times = rows // (sets * width)
    return jnp.broadcast_to(x[:, None], (sets, times, *x.shape[1:])).reshape(rows, *x.shape[2:])


class LoRADense(nn.Module):
    """A dense layer with a low-rank update: x W + (x down) up.

    The update is computed beside the frozen product and not merged into W: 16-bit weights would
    round small updates away, and `down` and `up` would need the gradient of all of W. It is
    computed in float32, and recomputed for the gradient rather than kept.
    """

    features: int
    use_bias: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, x: Float[Array, "*rows D"], update: Mapping[str, Float[Array, "_ _"]] | None
    ) -> Float[Array, "*rows {self.features}"]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], self.features))
        out = x.astype(self.dtype) @ kernel.astype(self.dtype)
        if self.use_bias:
            out += self.param("bias", nn.initializers.zeros, (self.features,)).astype(self.dtype)
        if update is None:
            return out
        return out + _low_rank(x, update["down"], update["up"]).astype(self.dtype)


@jax.checkpoint
def _low_rank(
    x: Float[Array, "*rows D"], down: Float[Array, "D r"], up: Float[Array, "r E"]
) -> Float[Array, "*rows E"]:
    return (x.astype(jnp.float32) @ down) @ up


def split_heads(x: Float[Array, "B N HD"], heads: int) -> Float[Array, "B N {heads} D"]:
    """Reshape states into those of each head."""
    return x.reshape(*x.shape[:2], heads, -1)


def _attend(
    query: Float[Array, "B N H D"], key: Float[Array, "B L H D"], value: Float[Array, "B L H D"]
) -> Float[Array, "B N H D"]:
    """Compute attention; logits and softmax are float32 in every dtype."""
    logits = jnp.einsum("BNHD,BLHD->BHNL", query, key, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * query.shape[-1] ** -0.5, axis=-1).astype(value.dtype)
    return jnp.einsum("BHNL,BLHD->BNHD", weights, value)


def attend(
    query: Float[Array, "B N H D"], key: Float[Array, "B L H D"], value: Float[Array, "B L H D"]
) -> Float[Array, "B N H D"]:
    """Compute self-attention, in chunks of queries where the logits would be large.

    At 64x64 latents the logits of one row are 335 MB; a chunk is 512 queries against all keys,
    recomputed for the gradient instead of kept.
    """
    rows, queries, heads, width = query.shape
    if queries <= 2 * _QUERY_CHUNK or queries % _QUERY_CHUNK:
        return _attend(query, key, value)
    chunks = query.reshape(rows, -1, _QUERY_CHUNK, heads, width).swapaxes(0, 1)
    out = jax.lax.map(jax.checkpoint(lambda chunk: _attend(chunk, key, value)), chunks)
    return out.swapaxes(0, 1).reshape(rows, queries, heads, width)


class SelfAttention(nn.Module):
    """A multi-head attention of a hidden state to itself."""

    heads: int
    upcast: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B N D"], adapter: AdapterParams
    ) -> Float[Array, "B N D"]:
        features = hidden.shape[-1]
        query, key, value = (
            split_heads(
                LoRADense(features, False, self.dtype, name=name)(hidden, adapter.get(name)),
                self.heads,
            )
            for name in ("to_q", "to_k", "to_v")
        )
        if self.upcast:  # SD 2.x: 16-bit logits overflow in some heads
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        out = checkpoint_name(attend(query, key, value), ATTENDED).reshape(hidden.shape)
        return LoRADense(features, True, self.dtype, name="to_out_0")(out, adapter.get("to_out"))


class CrossAttention(nn.Module):
    """A multi-head attention of image positions to caption tokens that returns its scores."""

    heads: int
    upcast: bool
    reduce: Reduce
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B N D"], states: Float[Array, "S J L E"], adapter: AdapterParams
    ) -> tuple[Float[Array, "B N D"], Array]:
        """Attend from hidden states to text states.

        Keys and values are projected once per caption, then broadcast to the rows.

        Returns:
            The new hidden state, and the reduced logits.
        """
        features = hidden.shape[-1]
        query = LoRADense(features, False, self.dtype, name="to_q")(hidden, adapter.get("to_q"))
        key = LoRADense(features, False, self.dtype, name="to_k")(states, adapter.get("to_k"))
        value = LoRADense(features, False, self.dtype, name="to_v")(states, adapter.get("to_v"))
        if tokens := adapter.get("tokens"):
            key, value = _append(key, tokens["key"]), _append(value, tokens["value"])
        key, value = (broadcast_to_rows(x, hidden.shape[0]) for x in (key, value))
        query, key, value = (split_heads(x, self.heads) for x in (query, key, value))
        if self.upcast:
            query, key = query.astype(jnp.float32), key.astype(jnp.float32)
        logits = jnp.einsum("BNHD,BLHD->BHNL", query, key, preferred_element_type=jnp.float32)
        logits = logits * query.shape[-1] ** -0.5
        weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
        out = jnp.einsum("BHNL,BLHD->BNHD", weights, value)
        out = checkpoint_name(out, ATTENDED).reshape(hidden.shape)
        out = LoRADense(features, True, self.dtype, name="to_out_0")(out, adapter.get("to_out"))
        return out, self.reduce(logits)


def _append(
    states: Float[Array, "S J L D"], tokens: Float[Array, "M D"]
) -> Float[Array, "S J L+M D"]:
    """Append learned tokens to every caption's."""
    tokens = jnp.broadcast_to(tokens.astype(states.dtype), (*states.shape[:2], *tokens.shape))
    return jnp.concatenate([states, tokens], axis=2)
