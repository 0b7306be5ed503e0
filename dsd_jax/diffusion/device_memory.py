"""Rows per call of a network, from a device's memory: one rule for all calls.

A row is one (image, caption, timestep). Results do not depend on the rows per call, so the rule
changes time and memory alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.models.unet_config import UNetConfig

GIB = 2**30
# Latent positions per call of the UNet: as many as fit a CPU's caches, or fill an accelerator.
_POSITIONS = {"cpu": 8_192}
_POSITIONS_ELSEWHERE = 65_536
# Share of a device's memory; the rest is for the program, its inputs, another network's params and
# the gaps between buffers.
_USABLE = 0.85
_IMAGE_POSITIONS = 32 * 64**2  # pixels that the VAE encodes at a time, and at least one image
TEXT_ROWS = 32  # captions that a text encoder encodes at a time
_QUERIES = 512  # in a chunk of self-attention, see `models.attention.attend`
FITTED = 2**31  # bytes of frozen outputs that score weights are fitted to, where memory is unknown


@dataclass(frozen=True)
class Device:
    """The limits of a device.

    Attributes:
        positions: latent positions per call of the UNet beyond which it gets no faster.
        memory: bytes that programs may use; None where the device does not report it, as CPUs.
    """

    positions: int
    memory: int | None = None

    @classmethod
    def local(cls) -> "Device":
        """Return the limits of this host's devices; the lowest where they differ."""
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        limits = [stat["bytes_limit"] for stat in stats if stat.get("bytes_limit")]
        return cls.of(jax.default_backend(), min(limits) if len(limits) == len(stats) else None)

    @classmethod
    def of(cls, backend: str, memory: int | None) -> "Device":
        """Return the limits of a device of `backend`, such as "tpu", with `memory` bytes."""
        return cls(_POSITIONS.get(backend, _POSITIONS_ELSEWHERE), memory)

    def free_bytes(self, params: float) -> float:
        """Return the bytes that are left for activations beside `params` bytes."""
        return float("inf") if self.memory is None else _USABLE * self.memory - params


def forward_rows(
    device: Device, unet: UNetConfig, latent: tuple[int, ...], *, itemsize: int, params: float
) -> int:
    """Return the rows per device of a call of the UNet without gradients; at least 1.

    Args:
        device: its limits.
        unet: config of the network.
        latent: shape (h, w, D).
        itemsize: bytes of a number in the network's dtype.
        params: bytes of all params on the device.
    """
    rows = device.positions // (latent[0] * latent[1])
    fit = device.free_bytes(params) / forward_bytes(unet, latent, itemsize)
    return int(max(1, min(rows, fit)))


def image_rows(image_size: int) -> int:
    """Return the images per call of the VAE's encoder, per device."""
    return max(1, _IMAGE_POSITIONS // image_size**2)


def forward_bytes(unet: UNetConfig, latent: tuple[int, ...], itemsize: int) -> int:
    """Estimate the peak bytes per row of a call without gradients.

    These are the skip connections, the logits of self-attention at its finest level, and what is
    computed there: `tests/planning/test_memory.py` holds it against compiled programs.
    """
    levels = len(unet.block_out_channels)
    sizes = [latent[0] * latent[1] // 4**level for level in range(levels)]
    hidden = [size * width for size, width in zip(sizes, unet.block_out_channels, strict=True)]
    skips = sum((unet.layers_per_block + 1) * floats for floats in hidden) * itemsize
    attended = [
        4 * heads * min(size, _QUERIES) * size + 12 * floats * itemsize
        for heads, size, floats, has_attention in zip(
            unet.heads, sizes, hidden, unet.down_attention, strict=True
        )
        if has_attention
    ]
    return int(skips + max([*attended, 0]) + 4 * hidden[0] * (4 + itemsize))


@contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn an out-of-memory error of the compiler or allocator into a `UserError`.

    Args:
        what: the program, such as "a training step".
        remedy: what to do, such as "raise accumulate".
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{what} does not fit into a device's memory; {remedy}: {reason}"
        ) from error


def bytes_per_device(tree: Any) -> int:
    """Return the bytes per device of a tree of arrays or ShapeDtypeStructs, by their shardings."""
    total = 0
    for leaf in jax.tree.leaves(tree):
        sharding = getattr(leaf, "sharding", None)
        shape = leaf.shape if sharding is None else sharding.shard_shape(leaf.shape)
        total += int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
    return total


def even_size(count: int, most: int) -> int:
    """Return the size from half of `most` to `most` that pads `count` the least."""
    most = max(1, min(count, most))
    return min(range(most, most // 2, -1), key=lambda size: -(-count // size) * size)
