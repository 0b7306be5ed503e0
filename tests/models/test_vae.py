"""The autoencoder's configs and ranges; its numbers are checked in tests/parity."""

from copy import deepcopy

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.models.vae import AutoencoderKL, VAEConfig, abstract_params
from tests.random_model import VAE, random_model


def test_config():
    config = VAEConfig.from_json(VAE)
    assert config.downscale == 2 and config.scaling_factor == 0.18215
    assert VAEConfig.from_json(config.to_json()) == config
    assert VAEConfig.from_json(VAE | {"scaling_factor": 0.5}).scaling_factor == 0.5


@pytest.mark.parametrize(
    "change",
    [
        {"down_block_types": ["AttnDownEncoderBlock2D"] * 2},
        {"act_fn": "gelu"},
        {"in_channels": 4},
        {"use_quant_conv": False},
        {"shift_factor": 0.1},
        {"mid_block_add_attention": False},
    ],
)
def test_other_networks_are_refused_by_name(change):
    with pytest.raises(UserError, match=f"vae/config.json: {next(iter(change))} is .* only"):
        VAEConfig.from_json(VAE | change)


def test_names_are_those_of_diffusers_flax():
    params = abstract_params(VAEConfig.from_json(VAE))
    assert set(params) == {"encoder", "decoder", "quant_conv", "post_quant_conv"}
    attention = params["encoder"]["mid_block"]["attentions_0"]
    assert set(attention) == {"group_norm", "query", "key", "value", "proj_attn"}
    assert "downsamplers_0" in params["encoder"]["down_blocks_0"]
    assert "downsamplers_0" not in params["encoder"]["down_blocks_1"]
    assert "upsamplers_0" in params["decoder"]["up_blocks_0"]


def test_log_variance_is_clipped_where_pytorch_clips_it():
    model = random_model()
    params = deepcopy(model.params["vae"])
    bias = jnp.full(8, 100.0).at[6:].set(-100.0)
    params["quant_conv"]["bias"] = bias
    encode = jax.jit(
        lambda params, x: AutoencoderKL(model.vae).apply({"params": params}, x, method="encode")
    )
    mean, logvar = encode(params, jnp.zeros((1, 8, 8, 3)))
    assert np.abs(mean).max() > 50
    np.testing.assert_array_equal(logvar[..., :2], 20.0)
    np.testing.assert_array_equal(logvar[..., 2:], -30.0)
