"""The transformer of CLIP's two towers: layers with pre-norm, one self-attention and one MLP.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPEncoder`); parameter names are those of
its Flax port.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from dsd_jax.models.attention import split_heads

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
}


@runtime_checkable
class EncoderConfig(Protocol):
    """The fields of a tower's config that its layers read."""

    @property
    def hidden_size(self) -> int: ...
    @property
    def intermediate_size(self) -> int: ...
    @property
    def layers(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def activation(self) -> str: ...
    @property
    def norm_eps(self) -> float: ...


class _SelfAttention(nn.Module):
    """A self-attention; where it is causal a token attends to itself and those before it."""

    config: EncoderConfig
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        c = self.config
        query, key, value = (
            split_heads(nn.Dense(c.hidden_size, dtype=self.dtype, name=name)(hidden), c.heads)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        logits = jnp.einsum("BNHD,BLHD->BHNL", query, key, preferred_element_type=jnp.float32)
        logits = logits * query.shape[-1] ** -0.5
        if self.causal:  # padding included
            visible = jnp.tril(jnp.ones(logits.shape[-2:], bool))
            logits = jnp.where(visible, logits, jnp.finfo(jnp.float32).min)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        out = jnp.einsum("BHNL,BLHD->BNHD", weights, value).reshape(hidden.shape)
        return nn.Dense(c.hidden_size, dtype=self.dtype, name="out_proj")(out)


class _MLP(nn.Module):
    config: EncoderConfig
    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        hidden = nn.Dense(self.config.intermediate_size, dtype=self.dtype, name="fc1")(hidden)
        hidden = ACTIVATIONS[self.config.activation](hidden)
        return nn.Dense(self.config.hidden_size, dtype=self.dtype, name="fc2")(hidden)


class _Layer(nn.Module):
    config: EncoderConfig
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, hidden: Float[Array, "B L D"]) -> Float[Array, "B L D"]:
        c = self.config
        norm = nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype, name="layer_norm1")
        hidden += _SelfAttention(c, self.causal, self.dtype, name="self_attn")(norm(hidden))
        norm = nn.LayerNorm(epsilon=c.norm_eps, dtype=self.dtype, name="layer_norm2")
        return hidden + _MLP(c, self.dtype, name="mlp")(norm(hidden))


class _Layers(nn.Module):
    config: EncoderConfig
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
        last_input = hidden
        for i in range(self.config.layers):
            layer = _Layer(self.config, self.causal, self.dtype, name=str(i))
            last_input, hidden = hidden, layer(hidden)
        return hidden, last_input


class Encoder(nn.Module):
    """The layers of a tower over hidden states."""

    config: EncoderConfig
    causal: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(
        self, hidden: Float[Array, "B L D"]
    ) -> tuple[Float[Array, "B L D"], Float[Array, "B L D"]]:
        """Return the last layer's output and its input."""
        return _Layers(self.config, self.causal, self.dtype, name="layers")(hidden)
