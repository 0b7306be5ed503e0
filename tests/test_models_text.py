"""The text tower: what a token sees, and which configs we read."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.models.text import CLIPText, TextConfig
from tests.random_model import TEXT, random_model


def test_a_token_sees_what_stands_before_it():
    model = random_model()
    ids = np.random.default_rng(0).integers(0, 900, (2, 77), np.int32)
    ids[1] = ids[0]
    ids[1, 40:] = 7
    apply = jax.jit(lambda ids: CLIPText(model.text).apply({"params": model.params["text"]}, ids))
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
    with pytest.raises(UserError, match="hidden_act is 'relu', expected one of quick_gelu, gelu"):
        TextConfig.from_json(TEXT | {"hidden_act": "relu"})


def test_missing_fields_are_all_named():
    json = {key: TEXT[key] for key in TEXT if key not in ("vocab_size", "hidden_size")}
    with pytest.raises(UserError, match="config.json: vocab_size, hidden_size missing"):
        TextConfig.from_json(json)
