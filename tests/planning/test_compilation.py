"""Programs compiled for TPUs, against what is known of them beforehand."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from dsd_jax.planning.compilation import GIB, Figures, Shortage, compile_figures, read_shortage
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
def figures(mesh):
    return compile_figures(step, *arguments(mesh))


def test_memory_per_device(figures):
    assert isinstance(figures, Figures) and figures.fits
    learned, frozen, x = 4 * WIDTH**2, 2 * TURNS * WIDTH**2 // 4, 2 * ROWS * WIDTH // 8
    assert figures.arguments == pytest.approx(learned + frozen + x, rel=0.01)
    assert figures.aliased == learned  # donation is kept
    assert figures.outputs == pytest.approx(learned, rel=0.01)
    assert figures.temporaries > 0 and figures.code > 0


def test_peak_is_what_the_compiler_holds_against_its_memory():
    one = jax.make_mesh((1,), ("data",), (AxisType.Auto,), devices=make_slice("v5e:1x1").devices)

    def found(rows):
        x = on(one, (rows, 65_536), jnp.float32)
        return compile_figures(jax.jit(lambda x: x + 1), x)

    assert found(32_200).peak == pytest.approx(2 * 32_200 * 65_536 * 4, rel=1e-3)
    assert found(32_300) == Shortage(15.77 * GIB, 15.75 * GIB)


def test_too_large_a_program_is_a_result(mesh):
    big = on(mesh, (200_000, 200_000), jnp.bfloat16)
    found = compile_figures(jax.jit(lambda x: (x @ x) @ (x.T @ x)), big)
    assert isinstance(found, Shortage) and not found.fits
    assert found.available == make_slice("v5e:2x4").chip.hbm * GIB
    assert str(found).startswith("does not fit: needs ") and "of 15.75 GiB" in str(found)


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
        compile_figures(Failing())
