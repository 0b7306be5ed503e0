"""How much device memory a command's calls of the UNet take, by XLA's own files, and may take."""

import re
from pathlib import Path

import jax
import numpy as np

from dsd_jax.diffusion.device_memory import Device, forward_bytes, forward_rows
from dsd_jax.models.components import UNET
from dsd_jax.models.unet import abstract_params
from dsd_jax.weights.component_files import read_config

# Programs that run the UNet: without gradients, and a step of learning.
FORWARD, UPDATE = "forward_terms", "update"
# What XLA for CPUs needs of activations, by what the rule says of accelerators: 1.6 as measured.
_OF_CPUS = 2
_TOTAL = re.compile(r"^Total bytes: (\d+)", re.MULTILINE)


def dumping_flags(folder: Path) -> str:
    """Return `XLA_FLAGS` by which XLA writes to `folder` what the UNet's programs take."""
    return f"--xla_dump_to={folder} --xla_dump_hlo_module_re=^jit_({FORWARD}|{UPDATE})$"


def taken(folder: Path, program: str) -> int:
    """Return the bytes of the largest of a program's compiled forms, arguments included; or 0."""
    reports = folder.glob(f"*.jit_{program}.*-memory-usage-report.txt")
    return max((_total(report) for report in reports), default=0)


def _total(report: Path) -> int:
    return sum(map(int, _TOTAL.findall(report.read_text())))


def planned(model: Path, itemsize: int) -> int:
    """Return the bytes of a call without gradients of as many rows as `device_memory` plans.

    Args:
        model: its folder.
        itemsize: bytes of a number in the run's dtype.
    """
    unet = read_config(model, UNET)
    latent = unet.sample_size, unet.sample_size, unet.in_channels
    shapes = jax.tree.leaves(abstract_params(unet))
    weights = sum(int(np.prod(leaf.shape)) for leaf in shapes) * itemsize
    rows = forward_rows(Device.of("cpu", None), unet, latent, itemsize=itemsize, params=weights)
    return weights + _OF_CPUS * rows * forward_bytes(unet, latent, itemsize)
