"""One call of the UNet: noised latents and captions enter, the outputs of every pair leave.

`OutputSpec` says which outputs are computed, `forward_terms` computes them, and `Terms` holds them
for all pairs. `batching` cuts many pairs into such calls.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsd_jax.diffusion.noising import Schedule
from dsd_jax.diffusion.pipeline import Array, EncodedCaptions, Model
from dsd_jax.models.attention import mean_lse
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig

# Norms of the difference between noise and predicted noise, element by element (Diffusion
# Classifier's `eval_prob_adaptive.py`: `--loss l1` and `huber`, torch's with delta 1).
NORMS = {"l1": jnp.abs, "huber": partial(optax.losses.huber_loss, delta=1.0)}


class Terms(NamedTuple):
    """The UNet's outputs for I images x C captions at T timesteps, from which scores are computed.

    All are float32; layers are named by diffusers' module paths.

    Attributes:
        lse: {layer: (I, C, T, H)}, mean over queries of the logsumexp over a caption's tokens.
        lse_uncond: {layer: (I, T, H)}, the same for the empty caption.
        error: (I, C, T), 2-norm of noise minus predicted noise (v-prediction converted), or None.
        error_uncond: (I, T), the same for the empty caption, or None.
        norms: {name in `NORMS`: (I, C, T)}, means over the latent of other norms of the difference.
    """

    lse: dict[str, Array]
    lse_uncond: dict[str, Array]
    error: Array | None
    error_uncond: Array | None
    norms: dict[str, Array] = {}


def with_uncond(terms: Terms, frozen: Terms) -> Terms:
    """Return `terms` with the empty caption's outputs of `frozen`."""
    return terms._replace(lse_uncond=frozen.lse_uncond, error_uncond=frozen.error_uncond)


def uncond_part(terms: Terms) -> Terms:
    """Return the empty caption's outputs alone."""
    return Terms({}, terms.lse_uncond, None, terms.error_uncond)


class OutputSpec(NamedTuple):
    """The outputs to compute; others cost nothing. Hashable: a static argument.

    Attributes:
        layers: cross-attention layers whose `lse` is computed.
        error: whether `error` is computed.
        uncond: whether the empty caption's outputs are computed too.
        norms: names in `NORMS`; they need `error`.
    """

    layers: tuple[str, ...]
    error: bool = True
    uncond: bool = True
    norms: tuple[str, ...] = ()


def cross_attention_layers(config: UNetConfig) -> tuple[str, ...]:
    """Return the paths of all cross-attention layers, in the order of the forward pass."""
    levels = len(config.block_out_channels)
    down = [
        (f"down_blocks.{i}.attentions.{j}", config.depths[i])
        for i in range(levels)
        if config.down_attention[i]
        for j in range(config.layers_per_block)
    ]
    up = [
        (f"up_blocks.{i}.attentions.{j}", config.depths[levels - 1 - i])
        for i in range(levels)
        if config.up_attention[i]
        for j in range(config.layers_per_block + 1)
    ]
    return tuple(
        f"{path}.transformer_blocks.{k}.attn2"
        for path, depth in [*down, ("mid_block.attentions.0", config.depths[-1]), *up]
        for k in range(depth)
    )


def finest_layers(config: UNetConfig) -> tuple[str, ...]:
    """Return the cross-attention layers of the finest grid, in the order of the forward pass."""
    levels = len(config.block_out_channels)
    first = config.down_attention.index(True) if any(config.down_attention) else levels - 1
    sides = f"down_blocks.{first}.", f"up_blocks.{levels - 1 - first}."
    found = tuple(x for x in cross_attention_layers(config) if x.startswith(sides))
    return found or cross_attention_layers(config)


def all_outputs(config: UNetConfig) -> OutputSpec:
    """Return the spec of all outputs of all layers, without other norms."""
    return OutputSpec(cross_attention_layers(config))


def output_floats(config: UNetConfig, outputs: OutputSpec, captions: int) -> int:
    """Return how many numbers the outputs of an image with so many captions are, per timestep."""
    heads = sum(_heads(config, layer) for layer in outputs.layers)
    rows = captions + outputs.uncond
    return rows * (heads + outputs.error) + captions * outputs.error * len(outputs.norms)


def _heads(config: UNetConfig, layer: str) -> int:
    side, _, below = layer.partition(".")
    if side == "mid_block":
        return config.heads[-1]
    level = int(below.partition(".")[0])
    return config.heads[level if side == "down_blocks" else len(config.heads) - 1 - level]


class ForwardConfig(NamedTuple):
    """The static (hashable) arguments of a call of the UNet."""

    unet: UNetConfig
    schedule: Schedule
    dtype: Any
    outputs: OutputSpec
    policy: BlockPolicy = BlockPolicy()
    image_size: int = 0  # read by SDXL alone

    @classmethod
    def of(cls, model: Model, outputs: OutputSpec, remat: str = "nothing") -> "ForwardConfig":
        """Return the static arguments for `model`."""
        policy = BlockPolicy(remat, gather=model.mesh.shape["fsdp"] > 1)
        dtype, size = jnp.dtype(model.dtype), model.image_size
        return cls(model.unet, model.schedule, dtype, outputs, policy, size)


class UNetInputs(NamedTuple):
    """The arrays of one call: I images x J captions at T timesteps; leading axes may be sharded.

    Attributes:
        latents: (I, T or 1, h, w, D), scaled.
        noise: (I, T, h, w, D).
        timesteps: (T,).
        texts: text states (n, J, ...) of the captions of n items; images i * I / n up to
            (i + 1) * I / n - 1 are paired with the captions of item i.
    """

    latents: Array
    noise: Array
    timesteps: Array
    texts: EncodedCaptions


@partial(jax.jit, static_argnums=0)
def forward_terms(
    config: ForwardConfig, params: Any, adapters: Any, inputs: UNetInputs
) -> tuple[dict[str, jax.Array], jax.Array | None, dict[str, jax.Array]]:
    """Run the UNet once.

    Args:
        config: the static arguments.
        params: of the UNet.
        adapters: trained parameters by attention layer (`prompt_params.by_layer`).
        inputs: arrays of I images, T timesteps and J captions.

    Returns:
        {layer: lse (I, T, J, H)}, error (I, T, J) and {norm: (I, T, J)}.
    """
    images, times = len(inputs.latents), len(inputs.timesteps)
    shape, captions = inputs.latents.shape[2:], inputs.texts.states.shape[1]
    latents = jnp.broadcast_to(inputs.latents, (images, times, *shape)).reshape(-1, *shape)
    noise = jnp.broadcast_to(inputs.noise, (images, times, *shape)).reshape(-1, *shape)
    timesteps = jnp.tile(inputs.timesteps, images)
    noisy = config.schedule.add_noise(latents, noise, timesteps)
    unet = UNet2DCondition(config.unet, mean_lse, config.policy, config.dtype)
    conditions = inputs.texts.states, adapters, inputs.texts.pooled
    lse: Any
    prediction, lse = unet.apply(
        {"params": params}, noisy, timesteps, *conditions, image_size=config.image_size
    )
    lse = {
        layer: lse[layer].reshape(images, times, captions, -1) for layer in config.outputs.layers
    }
    if not config.outputs.error:
        return lse, None, {}
    noise, noisy, timesteps = (jnp.repeat(x, captions, axis=0) for x in (noise, noisy, timesteps))
    difference = noise - config.schedule.epsilon(prediction, noisy, timesteps)
    error = jnp.sqrt(jnp.sum(jnp.square(difference), axis=(1, 2, 3)))
    norms = {
        name: jnp.mean(NORMS[name](difference), axis=(1, 2, 3)) for name in config.outputs.norms
    }
    by_pair = partial(jnp.reshape, shape=(images, times, captions))
    return lse, by_pair(error), jax.tree.map(by_pair, norms)
