"""Devices that are not there, in use, or that their jaxlib computes wrong sums on."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jaxlib.version
import pytest

import dsd_jax
from dsd_jax import convert, plan
from dsd_jax.clip.clip_files import load_clip
from dsd_jax.distributed.devices import check_devices, fast_dtype
from dsd_jax.errors import DeviceError, UserError

CONFIGS = Path(__file__).parents[2] / "configs"
BUSY = (
    "Unable to initialize backend 'tpu': ABORTED: The TPU is already in use by process with pid 7."
    " (set JAX_PLATFORMS='' to automatically choose an available backend)\nmore"
)


@pytest.fixture
def without_devices(monkeypatch):
    """Makes JAX raise an error, by default a busy TPU's, where it is asked for its devices."""

    def replace(error: Exception) -> None:
        def fail():
            raise error

        monkeypatch.setattr(jax, "local_devices", fail)

    replace(RuntimeError(BUSY))
    return replace


def test_devices_that_are_there(monkeypatch):
    check_devices()
    monkeypatch.setenv("DSD_ACCELERATOR", "cuda")  # JAX_PLATFORMS, set for the tests, comes first
    check_devices()


def test_busy_device_is_named_before_anything_is_loaded(without_devices):
    said = "JAX finds no cpu device .*The TPU is already in use by process with pid 7\\); wait"
    for load in (dsd_jax.load, load_clip):
        with pytest.raises(DeviceError, match=said):
            load("no such model")


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(convert, ["tiny", "new"]), (plan, [f"--config={CONFIGS}/emoji.py", "--gpus=1"])],
)
def test_busy_device_ends_commands_that_load_no_model(
    without_devices, command, arguments, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeviceError, match="JAX finds no cpu device"):
        command.main(arguments)
    assert not list(tmp_path.iterdir())


def test_missing_device_has_a_reason_where_jax_gives_none(without_devices):
    without_devices(AssertionError())
    with pytest.raises(DeviceError, match="there is none in this machine, or no driver"):
        check_devices()


def test_a_bug_stays_one(without_devices):
    without_devices(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        check_devices()


@pytest.mark.parametrize("kind", ["cuda", "tpu"])
def test_accelerator_of_a_launcher_is_not_replaced_by_the_cpu(monkeypatch, kind):
    asked = jax.config.jax_platforms
    jax.config.update("jax_platforms", None)
    try:
        monkeypatch.setenv("DSD_ACCELERATOR", kind)
        with pytest.raises(DeviceError, match=f"no {kind} device \\(it has cpu alone\\)"):
            check_devices()
    finally:
        jax.config.update("jax_platforms", asked)


def test_version_that_computes_wrong_sums_is_refused(monkeypatch):
    monkeypatch.setattr(jaxlib.version, "__version__", "0.10.2")
    with pytest.raises(UserError, match="jaxlib 0.10.2 computes wrong sums on CPUs; install"):
        check_devices()


@pytest.mark.parametrize(("devices", "kept"), [(1, True), (2, False)])
def test_programs_of_several_cpu_devices_are_compiled_afresh(tmp_path, devices, kept):
    """Read back, they have lost the order in which devices exchange values."""
    program = (
        "import jax, jax.numpy as jnp; from dsd_jax.distributed.devices import check_devices\n"
        "jax.jit(jnp.sin)(1.0); check_devices(); before = len(list(CACHE.iterdir()))\n"
        "jax.jit(jnp.cos)(1.0); print(len(list(CACHE.iterdir())) > before)"
    ).replace("CACHE", f"__import__('pathlib').Path({str(tmp_path)!r})")
    settings = {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
    )
    assert done.stdout == f"{kept}\n", done.stderr


@pytest.mark.parametrize(
    ("device", "dtype"),
    [
        ({"platform": "cpu"}, "float32"),
        ({"platform": "tpu"}, "bfloat16"),
        ({"platform": "gpu", "compute_capability": "7.5"}, "float16"),  # T4
        ({"platform": "gpu", "compute_capability": "8.0"}, "bfloat16"),  # A100
        ({"platform": "gpu", "compute_capability": "gfx90a"}, "bfloat16"),  # AMD
    ],
)
def test_fast_dtype_is_the_devices(device, dtype, monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [SimpleNamespace(**device)])
    assert fast_dtype() == dtype
