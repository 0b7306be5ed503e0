"""The terms of a forward pass: which there are, which are wanted, and one call of the UNet."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from dsd_jax.diffusion.pipeline import EncodedCaptions, Model
from dsd_jax.diffusion.schedule import Schedule
from dsd_jax.models.attention import mean_lse
from dsd_jax.models.block_policy import BlockPolicy
from dsd_jax.models.unet import UNet2DCondition
from dsd_jax.models.unet_config import UNetConfig

# Of a difference between noise and predicted noise, element by element (Diffusion Classifier's
# `eval_prob_adaptive.py`: `--loss l1` and `huber`, torch's with delta 1).
NORMS = {"l1": jnp.abs, "huber": partial(optax.losses.huber_loss, delta=1.0)}


class Terms(NamedTuple):
    """What every score is a small formula of; float32. Layer paths are diffusers' module paths.

    lse: {layer: (I, C, T, N)}, mean over positions of logsumexp over tokens, caption's row.
    lse_uncond: {layer: (I, T, N)}, the same for the empty caption.
    error: (I, C, T), the 2-norm of noise minus predicted noise, v-prediction converted.
    error_uncond: (I, T), the same for the empty caption.
    norms: {name of NORMS: (I, C, T)}, means over the latent of other norms of the same difference.
    """

    lse: dict[str, jax.Array]
    lse_uncond: dict[str, jax.Array]
    error: jax.Array | None
    error_uncond: jax.Array | None
    norms: dict[str, jax.Array] = {}


def with_uncond(terms: Terms, frozen: Terms) -> Terms:
    """`terms` with the empty caption's part of `frozen`."""
    return terms._replace(lse_uncond=frozen.lse_uncond, error_uncond=frozen.error_uncond)


def uncond_part(terms: Terms) -> Terms:
    """The empty caption's part of `terms` alone."""
    return Terms({}, terms.lse_uncond, None, terms.error_uncond)


class OutputSpec(NamedTuple):
    """Which terms to compute; what is not wanted costs nothing. Hashable: a static argument."""

    layers: tuple[str, ...]
    error: bool = True
    uncond: bool = True
    norms: tuple[str, ...] = ()  # of NORMS; they come with the error only


def cross_attention_layers(config: UNetConfig) -> tuple[str, ...]:
    """The paths of all cross-attention layers, in the order of the forward pass."""
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


def all_outputs(config: UNetConfig) -> OutputSpec:
    """All terms of all layers, other norms aside."""
    return OutputSpec(cross_attention_layers(config))


def output_floats(config: UNetConfig, wanted: OutputSpec, captions: int) -> int:
    """Return how many numbers the terms of a picture have per timestep."""
    heads = sum(_heads(config, layer) for layer in wanted.layers)
    rows = captions + wanted.uncond
    return rows * (heads + wanted.error) + captions * wanted.error * len(wanted.norms)


def _heads(config: UNetConfig, layer: str) -> int:
    side, _, rest = layer.partition(".")
    if side == "mid_block":
        return config.heads[-1]
    level = int(rest.partition(".")[0])
    return config.heads[level if side == "down_blocks" else len(config.heads) - 1 - level]


class ForwardConfig(NamedTuple):
    """What of a call of the UNet is static."""

    unet: UNetConfig
    schedule: Schedule
    dtype: Any
    wanted: OutputSpec
    blocks: BlockPolicy = BlockPolicy()
    image_size: int = 0  # read by SDXL alone

    @classmethod
    def of(cls, model: Model, wanted: OutputSpec, remat: str = "nothing") -> "ForwardConfig":
        """The static part of `model`."""
        blocks = BlockPolicy(remat, gather=model.mesh.shape["fsdp"] > 1)
        dtype, size = jnp.dtype(model.dtype), model.image_size
        return cls(model.unet, model.schedule, dtype, wanted, blocks, size)


@partial(jax.jit, static_argnums=0)
def forward_terms(
    net: ForwardConfig,
    params: Any,
    learned: Any,
    latents: jax.Array,
    noise: jax.Array,
    timesteps: jax.Array,
    texts: EncodedCaptions,
) -> tuple[dict[str, jax.Array], jax.Array | None, dict[str, jax.Array]]:
    """One call of the UNet on G groups x T timesteps x J captions.

    Args:
        net: what is static.
        params: the UNet's.
        learned: what is learned per attention layer (`prompts.by_layer`).
        latents: (G, T or 1, h, w, channels), scaled.
        noise: (G or 1, T, h, w, channels).
        timesteps: (T,).
        texts: of S sets of J captions; set s is for the groups s * G / S and following.

    Returns:
        {layer: (G, T, J, N)}, errors (G, T, J) and {norm: (G, T, J)}.
    """
    groups, times, shape = len(latents), len(timesteps), latents.shape[2:]
    width = texts.states.shape[1]
    latents = jnp.broadcast_to(latents, (groups, times, *shape)).reshape(-1, *shape)
    noise = jnp.broadcast_to(noise, (groups, times, *shape)).reshape(-1, *shape)
    steps = jnp.tile(timesteps, groups)
    noisy = net.schedule.add_noise(latents, noise, steps)
    model = UNet2DCondition(net.unet, mean_lse, net.blocks, net.dtype)
    conditions = texts.states, learned, texts.pooled
    prediction, scores = model.apply(
        {"params": params}, noisy, steps, *conditions, image_size=net.image_size
    )
    lse = {layer: scores[layer].reshape(groups, times, width, -1) for layer in net.wanted.layers}
    if not net.wanted.error:
        return lse, None, {}
    noise, noisy, steps = (jnp.repeat(x, width, axis=0) for x in (noise, noisy, steps))
    difference = noise - net.schedule.epsilon(prediction, noisy, steps)
    error = jnp.sqrt(jnp.sum(jnp.square(difference), axis=(1, 2, 3)))
    norms = {name: jnp.mean(NORMS[name](difference), axis=(1, 2, 3)) for name in net.wanted.norms}
    by_pair = partial(jnp.reshape, shape=(groups, times, width))
    return lse, by_pair(error), jax.tree.map(by_pair, norms)
