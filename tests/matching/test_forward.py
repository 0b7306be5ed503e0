"""One call of the UNet: outputs that are not asked for cost nothing, and captions share layers."""

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.diffusion.pipeline import EncodedCaptions
from dsd_jax.matching.forward import (
    ForwardConfig,
    OutputSpec,
    UNetInputs,
    all_outputs,
    cross_attention_layers,
    forward_terms,
)
from dsd_jax.models.unet_config import UNetConfig
from tests.random_model import UNET, random_model


@pytest.fixture(scope="module")
def model():
    return random_model()


def test_layers_in_the_order_of_the_forward_pass():
    assert cross_attention_layers(UNetConfig.from_json(UNET)) == tuple(
        f"{path}.transformer_blocks.0.attn2"
        for path in (
            "down_blocks.0.attentions.0",
            "mid_block.attentions.0",
            "up_blocks.1.attentions.0",
            "up_blocks.1.attentions.1",
        )
    )


def test_depths_belong_to_levels():
    deep = UNetConfig.from_json(
        UNET
        | {
            "down_block_types": ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2,
            "transformer_layers_per_block": [1, 3],
        }
    )
    layers = cross_attention_layers(deep)
    counts = {
        level: sum(path.startswith(f"{level}.attentions.0") for path in layers)
        for level in ("down_blocks.0", "down_blocks.1", "mid_block", "up_blocks.0", "up_blocks.1")
    }
    assert list(counts.values()) == [1, 3, 3, 3, 1]


def flops(model, wanted, captions=1):
    """Return the FLOPs of one compiled call for one image, as XLA counts them."""
    shape = jax.ShapeDtypeStruct
    grid = shape((1, 1, *model.latent_shape), jnp.float32)
    texts = EncodedCaptions(
        shape((1, captions, 77, model.unet.cross_attention_dim), jnp.float32),
        shape((1, captions, 0), jnp.float32),
    )
    cost = (
        forward_terms.lower(
            ForwardConfig.of(model, wanted),
            model.params["unet"],
            {},
            UNetInputs(grid, grid, shape((1,), jnp.int32), texts),
        )
        .compile()
        .cost_analysis()
    )
    return cost["flops"]


def test_what_is_not_wanted_is_not_computed(model):
    layers = cross_attention_layers(model.unet)
    first, middle = (
        OutputSpec(layers[:1], error=False),
        OutputSpec(("mid_block.attentions.0.transformer_blocks.0.attn2",), error=False),
    )
    full = flops(model, all_outputs(model.unet))
    assert flops(model, middle) < 0.7 * full
    assert flops(model, first) < 0.5 * flops(model, middle)
    assert flops(model, all_outputs(model.unet), captions=4) < 4 * full
