"""Transformer blocks over a feature map: self-attention, cross-attention, feed-forward.

Reference: diffusers `models/attention.py` (`BasicTransformerBlock`), `transformer_2d.py`. Parameter
names are those of diffusers' Flax tree.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dsd_jax.models.attention import (
    AdapterParams,
    CrossAttention,
    Reduce,
    SelfAttention,
    repeat_rows,
)
from dsd_jax.models.block_policy import BlockPolicy


class GEGLU(nn.Module):
    """A gated linear unit with exact (erf) GELU."""

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "B N D"]) -> Float[Array, "B N {self.features}"]:
        hidden = nn.Dense(2 * self.features, dtype=self.dtype, name="proj")(hidden)
        hidden, gate = jnp.split(hidden, 2, axis=-1)
        return hidden * jax.nn.gelu(gate, approximate=False)


class FeedForward(nn.Module):
    """The MLP of a transformer block, four times as wide inside."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        features = hidden.shape[-1]
        hidden = GEGLU(4 * features, self.dtype, name="net_0")(hidden)
        return nn.Dense(features, dtype=self.dtype, name="net_2")(hidden)


class TransformerBlock(nn.Module):
    """A block of self-attention, cross-attention, feed-forward; all pre-norm and residual."""

    heads: int
    upcast: bool
    reduce: Reduce
    rows: int  # B, of the result
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        hidden: Float[Array, "R N D"],
        states: Float[Array, "S J L E"],
        adapters: Mapping[str, AdapterParams],
    ) -> tuple[Float[Array, "{self.rows} N D"], Array]:
        """Return the new hidden state and the reduced cross-attention logits.

        Args:
            hidden: one row per latent, or per caption of each latent.
            states: text states.
            adapters: of "attn1" and "attn2".
        """

        def norm(name: str) -> nn.LayerNorm:
            return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

        hidden += SelfAttention(self.heads, self.upcast, self.dtype, name="attn1")(
            norm("norm1")(hidden), adapters.get("attn1", {})
        )
        # All before the first cross-attention is the same for all captions of an image.
        hidden = repeat_rows(hidden, self.rows)
        attn2 = CrossAttention(self.heads, self.upcast, self.reduce, self.dtype, name="attn2")
        out, scores = attn2(norm("norm2")(hidden), states, adapters.get("attn2", {}))
        hidden += out
        return hidden + FeedForward(self.dtype, name="ff")(norm("norm3")(hidden)), scores


class Transformer(nn.Module):
    """A spatial transformer (diffusers `Transformer2DModel`) over a feature map."""

    heads: int
    depth: int
    groups: int
    linear: bool
    upcast: bool
    reduce: Reduce
    rows: int
    policy: BlockPolicy
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "R h w D"],
        states: Float[Array, "S J L E"],
        adapters: Mapping[str, AdapterParams],
    ) -> tuple[Float[Array, "{self.rows} h w D"], dict[str, Array]]:
        """Return the new feature map and `{"transformer_blocks.0.attn2": scores, ...}`."""
        h, w, features = x.shape[1:]
        hidden = nn.GroupNorm(self.groups, epsilon=1e-6, dtype=self.dtype, name="norm")(x)
        hidden = self._project("proj_in", hidden, features).reshape(x.shape[0], h * w, features)
        scores, block_class = {}, self.policy.prepare(TransformerBlock)
        for i in range(self.depth):
            block = block_class(
                self.heads,
                self.upcast,
                self.reduce,
                self.rows,
                self.dtype,
                name=f"transformer_blocks_{i}",
            )
            path = f"transformer_blocks.{i}."
            layers = {name: adapters.get(f"{path}{name}", {}) for name in ("attn1", "attn2")}
            hidden, scores[f"{path}attn2"] = block(hidden, states, layers)
        hidden = hidden.reshape(-1, h, w, features)
        return repeat_rows(x, hidden.shape[0]) + self._project("proj_out", hidden, features), scores

    def _project(self, name: str, x: Float[Array, "*B E"], features: int) -> Float[Array, "*B D"]:
        # SD 1.x stores the same linear map as a 1x1 convolution, SD 2.x as a matrix.
        if self.linear:
            return self.policy.prepare(nn.Dense)(features, dtype=self.dtype, name=name)(x)
        return self.policy.prepare(nn.Conv)(features, (1, 1), dtype=self.dtype, name=name)(x)
