"""The devices that JAX computes on, started once and before anything is loaded."""

import os

import jax
import jaxlib.version
from jax.experimental.compilation_cache import compilation_cache

from dsd_jax.distributed.compiled_programs import keep_compiled_programs
from dsd_jax.errors import DeviceError, UserError

# What launchers say in DSD_ACCELERATOR -> what JAX calls such devices.
_PLATFORMS = {"cuda": "gpu", "tpu": "tpu"}
_WRONG_ON_CPU = "0.10.2"  # jax-ml/jax#39103
_BFLOAT16_GPU = 8.0  # compute capability of Ampere, the first with bfloat16 in its tensor cores


def check_devices() -> None:
    """Start JAX's devices, so that nothing else is blamed where they are missing or in use.

    From then on JAX keeps compiled programs (`compiled_programs.py`), unless they are for several
    CPU devices.

    Raises:
        DeviceError: JAX has none of those that `JAX_PLATFORMS` or a launcher asks for.
        UserError: jaxlib is a version that computes wrong sums on a CPU.
    """
    asked = jax.config.values["jax_platforms"] or ""
    try:
        platforms = {device.platform for device in jax.local_devices()}
    except (RuntimeError, AssertionError) as error:
        raise DeviceError(_explain(asked, _reason(error))) from error
    accelerator = os.environ.get("DSD_ACCELERATOR", "")
    if not asked and _PLATFORMS.get(accelerator, "cpu") not in platforms | {"cpu"}:
        # Not asked by name, JAX goes on with the CPU, a thousand times slower.
        raise DeviceError(_explain(accelerator, f"it has {', '.join(sorted(platforms))} alone"))
    if "cpu" in platforms and jaxlib.version.__version__ == _WRONG_ON_CPU:
        raise UserError(
            f"jaxlib {_WRONG_ON_CPU} computes wrong sums on CPUs; install another: "
            f"pip install 'jax!={_WRONG_ON_CPU}' 'jaxlib!={_WRONG_ON_CPU}'."
        )
    if "cpu" in platforms and jax.device_count() > 1:
        _compile_afresh()
    else:
        keep_compiled_programs()


def fast_dtype() -> str:
    """Return the name of the float type that this host's devices multiply matrices in fastest.

    It is bfloat16 on TPUs and GPUs, float16 on NVIDIA GPUs older than Ampere, such as the T4, and
    float32 on CPUs, which are slower in the others.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        return "float32"
    try:
        capability = float(getattr(device, "compute_capability", "inf"))
    except ValueError:  # AMD's are names
        capability = float("inf")
    return "float16" if capability < _BFLOAT16_GPU else "bfloat16"


def _compile_afresh() -> None:
    """Turn JAX's compilation cache off for this process.

    A program for CPUs that XLA reads back (jaxlib 0.10.1 and 0.12.0) has lost the order of its
    collective operations: devices take one's data for another's, which aborts the process, or
    wait for ever.
    """
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX asks only once whether it is on


def _explain(asked: str, reason: str) -> str:
    kind = f"{asked} device" if asked else "device"
    return (
        f"JAX finds no {kind} ({reason}); wait until no other process uses it, install what "
        "it needs, or set JAX_PLATFORMS=cpu to compute without it."
    )


def _reason(error: BaseException) -> str:
    """Return the first line of JAX's error, which is empty where it sees no such hardware."""
    text = str(error).strip().split("\n")[0].split(" (set JAX_PLATFORMS=")[0]
    return text.rstrip(". ") or "there is none in this machine, or no driver"
