"""The CLIP text tower: token ids to text states, and for SDXL to what is pooled of them.

Reference: transformers `models/clip/modeling_clip.py` (`CLIPTextTransformer`); parameter names
are those of its Flax port.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from dsd_jax.models.clip_layers import Layer
from dsd_jax.models.text_config import TextConfig


class _Layers(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        """What leaves the last layer, and what enters it."""
        before = hidden
        for i in range(self.config.layers):
            before, hidden = hidden, Layer(self.config, True, self.dtype, name=str(i))(hidden)
        return hidden, before


class _Encoder(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
        return _Layers(self.config, self.dtype, name="layers")(hidden)


class _Embeddings(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        c = self.config
        token = nn.Embed(c.vocab_size, c.hidden_size, dtype=self.dtype, name="token_embedding")
        position = nn.Embed(c.positions, c.hidden_size, dtype=self.dtype, name="position_embedding")
        return token(ids) + position(jnp.arange(ids.shape[1]))


class _Tower(nn.Module):
    config: TextConfig
    dtype: jnp.dtype

    @nn.compact
    def __call__(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """States after the final layer norm; states before the last layer, which have no norm."""
        hidden = _Embeddings(self.config, self.dtype, name="embeddings")(ids)
        hidden, before = _Encoder(self.config, self.dtype, name="encoder")(hidden)
        norm = nn.LayerNorm(epsilon=self.config.norm_eps, dtype=self.dtype, name="final_layer_norm")
        return norm(hidden), before


class CLIPText(nn.Module):
    """The text encoder of Stable Diffusion 1.x and 2.x."""

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array) -> jax.Array:
        """Token ids (C, L) int32 -> text states (C, L, K) float32, after the final layer norm."""
        states, _ = _Tower(self.config, self.dtype, name="text_model")(ids)
        return states.astype(jnp.float32)


class XLText(nn.Module):
    """Either text encoder of SDXL, which reads what enters the last layer.

    Reference: diffusers `pipeline_stable_diffusion_xl.py` (`encode_prompt`).
    """

    config: TextConfig
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ids: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Token ids (C, L) int32 -> states (C, L, K) and pooled (C, A), both float32.

        Pooled is the state after all layers at the caption's end, projected; A is 0 in the first
        encoder, which has no projection.
        """
        c = self.config
        last, states = _Tower(c, self.dtype, name="text_model")(ids)
        if not c.projection:
            return states.astype(jnp.float32), jnp.zeros((len(ids), 0))
        end = jnp.argmax(ids if c.end_token == 2 else ids == c.end_token, axis=1)
        pooled = nn.Dense(c.projection, use_bias=False, dtype=self.dtype, name="text_projection")(
            last[jnp.arange(len(ids)), end]
        )
        return states.astype(jnp.float32), pooled.astype(jnp.float32)


def abstract_params(config: TextConfig) -> dict:
    """The parameter tree's shapes without computing anything: nested dicts of ShapeDtypeStruct."""
    ids, network = jnp.zeros((1, config.positions), jnp.int32), XLText(config)
    return jax.eval_shape(network.init, jax.random.key(0), ids)["params"]
