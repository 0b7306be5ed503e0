"""Programs compiled for TPUs or lowered for CUDA, against what is known of them beforehand."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec

from dsd_jax.errors import UserError
from dsd_jax.planning.compilation import (
    GIB,
    CompiledStats,
    Shortage,
    compile_stats,
    lower_for_cuda,
    read_shortage,
)
from dsd_jax.planning.topology import make_slice

TURNS, ROWS, WIDTH = 6, 128, 512


@pytest.fixture(scope="module")
def mesh():
    devices = make_slice("v5e:2x4").devices
    return jax.make_mesh((2, 4), ("data", "fsdp"), (AxisType.Auto,) * 2, devices=devices)


def on(mesh, shape, dtype, *axes):
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*axes)))


def loss(learned, frozen, x):
    def turn(hidden, matrix):
        return jnp.tanh(hidden @ matrix) @ learned.astype(hidden.dtype), None

    return jnp.mean(jnp.square(lax.scan(turn, x, frozen)[0].astype(jnp.float32)))


@partial(jax.jit, donate_argnums=0)
def step(learned, frozen, x):
    value, gradient = jax.value_and_grad(loss)(learned, frozen, x)
    return learned - 0.1 * gradient, value


def arguments(mesh):
    return (
        on(mesh, (WIDTH, WIDTH), jnp.float32),
        on(mesh, (TURNS, WIDTH, WIDTH), jnp.bfloat16, None, "fsdp"),
        on(mesh, (ROWS, WIDTH), jnp.bfloat16, ("data", "fsdp")),
    )


@pytest.fixture(scope="module")
def stats(mesh):
    return compile_stats(step, *arguments(mesh))


def test_memory_per_device(stats):
    assert isinstance(stats, CompiledStats)
    learned, frozen, x = 4 * WIDTH**2, 2 * TURNS * WIDTH**2 // 4, 2 * ROWS * WIDTH // 8
    assert stats.arguments == pytest.approx(learned + frozen + x, rel=0.01)
    assert stats.aliased == learned  # donation is kept
    assert stats.outputs == pytest.approx(learned, rel=0.01)
    assert stats.temporaries > 0 and stats.code > 0


def test_peak_is_what_the_compiler_holds_against_its_memory():
    one = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=make_slice("v5e:1x1").devices)

    def found(rows):
        x = on(one, (rows, 65_536), jnp.float32)
        return compile_stats(jax.jit(lambda x: x + 1), x)

    assert found(32_200).peak == pytest.approx(2 * 32_200 * 65_536 * 4, rel=1e-3)
    assert found(32_300) == Shortage(15.77 * GIB, 15.75 * GIB)


def test_too_large_a_program_is_a_result(mesh):
    big = on(mesh, (200_000, 200_000), jnp.bfloat16)
    found = compile_stats(jax.jit(lambda x: (x @ x) @ (x.T @ x)), big)
    assert isinstance(found, Shortage)
    assert found.available == make_slice("v5e:2x4").chip.hbm * GIB


@pytest.mark.parametrize(
    ("message", "shortage"),
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (372.65G) exceeds available HBM (15.75G).",
            Shortage(372.65 * GIB, 15.75 * GIB),
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 20.50G of 15.75G hbm. Exceeded hbm capacity by 4.75G.",
            Shortage(20.5 * GIB, 15.75 * GIB),
        ),
        ("RESOURCE_EXHAUSTED: something else", None),
        ("INTERNAL: Used 20.50G of 15.75G hbm", None),
    ],
)
def test_what_compilers_say(message, shortage):
    assert read_shortage(message) == shortage


def test_other_errors_stay_errors():
    class Failing:
        def lower(self, *args):
            raise jax.errors.JaxRuntimeError("INTERNAL: a bug")

    with pytest.raises(jax.errors.JaxRuntimeError, match="a bug"):
        compile_stats(Failing())


@partial(jax.jit, donate_argnums=0)
def cuda_step(learned, x):
    def loss(learned):
        hidden = jax.checkpoint(lambda x: jnp.tanh(x @ learned["w"]))(x.astype(jnp.bfloat16))
        return jnp.mean(jax.nn.logsumexp(hidden.astype(jnp.float32), axis=-1))

    value, gradient = jax.value_and_grad(loss)(learned)
    return jax.tree.map(lambda w, g: w - 0.1 * g, learned, gradient), value


def test_a_training_step_for_cuda():
    mesh = AbstractMesh((8,), ("data",), axis_types=(AxisType.Auto,))
    w = jax.ShapeDtypeStruct(
        (4, 5), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, None))
    )
    x = jax.ShapeDtypeStruct(
        (16, 4), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec("data"))
    )
    lowered = lower_for_cuda(cuda_step, {"w": w}, x)
    shapes = [[(x.shape, str(x.dtype)) for x in structs] for structs in lowered[:2]]
    assert shapes == [
        [((4, 5), "float32"), ((16, 4), "int32")],
        [((4, 5), "float32"), ((), "float32")],
    ]
    assert lowered.devices == 8 and lowered.custom_calls == () and lowered.size > 1000


def test_kernels_are_named():
    x = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    lowered = lower_for_cuda(jax.jit(lambda x: jnp.linalg.qr(x)[0]), x)
    assert lowered.custom_calls == ("cusolver_geqrf_ffi", "cusolver_orgqr_ffi")


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
