"""One rule from a device's memory to rows per call: nothing calls a network with more.

A row is one (picture, caption, timestep). What a call gives does not depend on how many rows it
has, so the rule changes time and memory alone.
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
# Latent positions a call of the UNet works on: what fits caches on CPU, what fills an accelerator.
_POSITIONS = {"cpu": 8_192}
_POSITIONS_ELSEWHERE = 65_536
# Of a device's memory; the rest is for the program itself, its inputs, another network's weights
# and the gaps between buffers.
_USABLE = 0.85
_IMAGE_POSITIONS = 32 * 64**2  # pixels that the VAE encodes at a time, and at least one picture
TEXT_ROWS = 32  # captions that a text encoder encodes at a time
_QUERIES = 512  # of a chunk of self-attention, see `models.attention.attend`
FITTED = 2**31  # bytes of frozen outputs that score weights are fitted to, where memory is unknown


@dataclass(frozen=True)
class Device:
    """What one device takes at a time.

    Attributes:
        positions: latent positions per call of the UNet beyond which it gets no faster.
        memory: bytes that programs may use; None where the device does not say, as CPUs don't.
    """

    positions: int
    memory: int | None = None

    @classmethod
    def local(cls) -> "Device":
        """Return what this host's devices have in common."""
        stats = [device.memory_stats() or {} for device in jax.local_devices()]
        limits = [each["bytes_limit"] for each in stats if each.get("bytes_limit")]
        return cls.of(jax.default_backend(), min(limits) if len(limits) == len(stats) else None)

    @classmethod
    def of(cls, backend: str, memory: int | None) -> "Device":
        """Return the device of a backend, such as "tpu", with so many bytes."""
        return cls(_POSITIONS.get(backend, _POSITIONS_ELSEWHERE), memory)

    def room(self, weights: int) -> float:
        """Return the bytes that are left for activations beside `weights` bytes."""
        return float("inf") if self.memory is None else _USABLE * self.memory - weights


def forward_rows(device: Device, unet: UNetConfig, latent: tuple, itemsize: int, weights: int):
    """Return the rows of a call of the UNet without gradients, per device; at least 1.

    Args:
        device: that runs it.
        unet: the network.
        latent: (h, w, channels).
        itemsize: bytes of a number in the network's dtype.
        weights: bytes of all weights on the device.
    """
    rows = device.positions // (latent[0] * latent[1])
    fit = device.room(weights) / forward_bytes(unet, latent, itemsize)
    return int(max(1, min(rows, fit)))


def image_rows(image_size: int) -> int:
    """Return the pictures per call of the VAE's encoder, per device."""
    return max(1, _IMAGE_POSITIONS // image_size**2)


def forward_bytes(unet: UNetConfig, latent: tuple, itemsize: int) -> int:
    """Return about the bytes that a row needs at the worst moment of a call without gradients.

    These are the skip connections, the logits of self-attention at its finest level, and what is
    computed there: `tests/planning/test_memory.py` holds it against compiled programs.
    """
    levels = len(unet.block_out_channels)
    sizes = [latent[0] * latent[1] // 4**level for level in range(levels)]
    hidden = [size * width for size, width in zip(sizes, unet.block_out_channels, strict=True)]
    skips = sum((unet.layers_per_block + 1) * each for each in hidden) * itemsize
    attended = [
        4 * heads * min(size, _QUERIES) * size + 12 * each * itemsize
        for heads, size, each, has in zip(
            unet.heads, sizes, hidden, unet.down_attention, strict=True
        )
        if has
    ]
    return int(skips + max([*attended, 0]) + 4 * hidden[0] * (4 + itemsize))


@contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Iterator[None]:
    """Turn a compiler's or allocator's lack of device memory into a `UserError`.

    Args:
        what: needs the memory, such as "a training step".
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
    """Return the size, half of `most` to `most`, of which pieces of `count` waste the least."""
    most = max(1, min(count, most))
    return min(range(most, most // 2, -1), key=lambda size: -(-count // size) * size)
