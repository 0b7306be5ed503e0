"""Lowering for CUDA on a machine without."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from dsd_jax.errors import UserError
from dsd_jax.planning.gpu_lowering import lower_for_cuda


@partial(jax.jit, donate_argnums=0)
def step(learned, x):
    def loss(learned):
        hidden = jax.checkpoint(lambda x: jnp.tanh(x @ learned["w"]))(x.astype(jnp.bfloat16))
        return jnp.mean(jax.nn.logsumexp(hidden.astype(jnp.float32), axis=-1))

    value, gradient = jax.value_and_grad(loss)(learned)
    return jax.tree.map(lambda w, g: w - 0.1 * g, learned, gradient), value


def test_a_training_step():
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
    w = jax.ShapeDtypeStruct(
        (4, 5), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, None))
    )
    x = jax.ShapeDtypeStruct(
        (16, 4), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )
    found = lower_for_cuda(step, {"w": w}, x)
    shapes = [[(one.shape, str(one.dtype)) for one in some] for some in found[:2]]
    assert shapes == [
        [((4, 5), "float32"), ((16, 4), "int32")],
        [((4, 5), "float32"), ((), "float32")],
    ]
    assert found.devices == 8 and found.custom_calls == () and found.size > 1000


def test_kernels_are_named():
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    found = lower_for_cuda(jax.jit(lambda x: jnp.linalg.qr(x)[0]), x)
    assert found.custom_calls == ("cusolver_geqrf_ffi", "cusolver_orgqr_ffi")


def host_callback(x):
    return jax.pure_callback(lambda x: x, x, x)


def for_tpu_only(x):
    return lax.platform_dependent(x, tpu=jnp.sin, cpu=jnp.cos)


@pytest.mark.parametrize("function", [host_callback, lambda x: jnp.linalg.eig(x)[0], for_tpu_only])
def test_what_a_gpu_cannot_take(function):
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    with pytest.raises(
        UserError, match=r"^this step cannot be lowered for an NVIDIA GPU: .+\.$"
    ) as e:
        lower_for_cuda(jax.jit(function), x)
    assert "\n" not in str(e.value)
