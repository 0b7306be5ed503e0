"""The fingerprint changes with every bit, name, shape and type, and with nothing else."""

import jax
import jax.numpy as jnp
import numpy as np

from dsd_jax.models.weights_digest import weights_digest

PARAMS = {"b": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "a": np.ones(2)}


def test_it_depends_on_values_alone():
    again = {"a": np.ones(2), "b": {"kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3)}}
    assert weights_digest(PARAMS) == weights_digest(again)
    float32 = jax.tree.map(lambda x: np.asarray(x, np.float32), PARAMS)
    assert weights_digest(float32) == weights_digest(jax.tree.map(jnp.asarray, float32))
    assert len(weights_digest(PARAMS)) == 64


def test_it_sees_every_change():
    kernel = PARAMS["b"]["kernel"]
    flipped = kernel.copy()
    flipped.view(np.uint32)[1, 2] ^= 1
    others = [
        {**PARAMS, "b": {"kernel": flipped}},
        {**PARAMS, "b": {"kernel": kernel.reshape(3, 2)}},
        {**PARAMS, "b": {"kernel": kernel.astype(jnp.bfloat16)}},
        {**PARAMS, "b": {"kernel": kernel.view(np.int32)}},
        {**PARAMS, "b": {"scale": kernel}},
        {"a": PARAMS["a"]},
    ]
    assert len({weights_digest(params) for params in [PARAMS, *others]}) == 1 + len(others)
