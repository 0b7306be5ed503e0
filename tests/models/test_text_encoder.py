"""The text tower: what a token sees, and which configs we read."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.models.text_encoder import CLIPTextEncoder, SDXLTextEncoder, TextConfig
from tests.random_model import TEXT, TEXT_2, random_model


def test_a_token_sees_what_stands_before_it():
    model = random_model()
    ids = np.random.default_rng(0).integers(0, 900, (2, 77), np.int32)
    ids[1] = ids[0]
    ids[1, 40:] = 7
    apply = jax.jit(
        lambda ids: CLIPTextEncoder(model.text).apply({"params": model.params["text"]}, ids)
    )
    states = apply(ids)
    assert states.shape == (2, 77, 12) and states.dtype == jnp.float32
    np.testing.assert_array_equal(states[0, :40], states[1, :40])
    assert np.abs(states[0, 40:] - states[1, 40:]).max(axis=1).min() > 1e-3


def test_config():
    config = TextConfig.from_json(TEXT)
    assert (config.activation, config.positions, config.norm_eps) == ("quick_gelu", 77, 1e-5)
    assert TextConfig.from_json(config.to_json()) == config
    assert TextConfig.from_json({"text_config": TEXT}) == config


def test_unknown_activation():
    with pytest.raises(UserError, match="hidden_act is 'relu', expected 'quick_gelu' or 'gelu'"):
        TextConfig.from_json(TEXT | {"hidden_act": "relu"})


def test_missing_fields_are_all_named():
    json = {key: TEXT[key] for key in TEXT if key not in ("vocab_size", "hidden_size")}
    with pytest.raises(
        UserError, match="config.json: hidden_size is missing; .*vocab_size is missing"
    ):
        TextConfig.from_json(json)


def test_config_with_a_projection():
    config = TextConfig.from_json(TEXT_2, projected=True)
    assert (config.projection, config.end_token) == (10, 2)
    assert TextConfig.from_json(config.to_json(), projected=True) == config
    assert config.to_json()["architectures"] == ["CLIPTextModelWithProjection"]
    with pytest.raises(UserError, match="text_encoder_2/config.json: .* is missing"):
        TextConfig.from_json({}, "text_encoder_2/config.json", projected=True)


@pytest.mark.parametrize("end_token", [2, 800])
def test_pooled_is_the_state_at_the_end_of_a_caption(end_token):
    """The end is the highest id, or the first that is `end_token`; padding does not matter."""
    model = random_model(xl=True)
    config = replace(model.text_2, end_token=end_token)
    ids = np.random.default_rng(0).integers(3, 700, (3, 77), np.int32)
    ids[0, 10], ids[1, 30], ids[2, 20] = 800, 800, 800
    ids[2, 40] = 800  # a second time, as where captions are padded with their end
    ids[:, 5] = 5 if end_token == 2 else 900  # ids beyond the end's own are learned tokens'
    apply = jax.jit(
        lambda ids: SDXLTextEncoder(config).apply({"params": model.params["text_2"]}, ids)
    )
    states, pooled = apply(ids)
    assert states.shape == (3, 77, 8) and pooled.shape == (3, 10)
    changed = ids.copy()
    changed[0, 11:], changed[1, 31:], changed[2, 21:] = 5, 6, 7
    np.testing.assert_array_equal(apply(changed)[1], pooled)
    changed[:, 8] = 9
    assert np.abs(apply(changed)[1] - pooled).min() > 1e-4
