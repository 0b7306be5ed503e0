"""Plan of UNet calls: index arrays that cut pairs into calls of one shape.

The pairs are those of n items, each with P images and J captions, at T timesteps. A call takes some
images, some of their captions and some timesteps; its rows are all their combinations.
"""

from typing import NamedTuple

import numpy as np

from dsd_jax.diffusion.device_memory import even_size


class PairCounts(NamedTuple):
    """The numbers of items, images and captions per item, and timesteps; whether to add ""."""

    items: int
    images: int
    captions: int
    timesteps: int
    uncond: bool


class CallPlan(NamedTuple):
    """The index arrays of all calls: one call for each of `images` x `captions` x `timesteps`.

    Attributes:
        images: each (B,) int, which of the n * P images.
        items: for each of `images` the items whose captions they are paired with, (B / P',) int:
            P' images that stand side by side belong to one item.
        captions: each (J',) int, which of an item's captions.
        timesteps: each (T',) int, which of the timesteps.
    """

    images: list[np.ndarray]
    items: list[np.ndarray]
    captions: list[np.ndarray]
    timesteps: list[np.ndarray]

    @property
    def calls(self) -> int:
        """The number of calls."""
        return len(self.images) * len(self.captions) * len(self.timesteps)


def plan_calls(counts: PairCounts, rows: int, devices: int) -> CallPlan:
    """Return calls of at most `rows` rows per device, or of one image's smallest call.

    A call takes whole items, or, where an item has more images than fit, equal parts of items; of
    a match matrix any images. They are divided evenly over the devices; fewer than there are
    devices are computed by each of them.
    """
    captions = even_size(counts.captions, rows - counts.uncond)
    parts = counts.images if counts.items == 1 else _parts_of_an_item(counts, rows)
    images, units = counts.images // parts, counts.items * parts
    width = (captions + counts.uncond) * images  # rows of a unit per timestep
    times = even_size(counts.timesteps, rows // width)
    spread = devices if units >= devices else 1
    size = min(max(1, rows // (width * times)) * spread, units + -units % spread)
    ranges = padded_ranges(units, size)
    return CallPlan(
        [(unit[:, None] * images + np.arange(images)).reshape(-1) for unit in ranges],
        [np.zeros(1, int) if counts.items == 1 else unit // parts for unit in ranges],
        padded_ranges(counts.captions, captions),
        padded_ranges(counts.timesteps, times),
    )


def _parts_of_an_item(counts: PairCounts, rows: int) -> int:
    """Return into how many equal parts the images of an item are cut so that a part fits a call."""
    captions = min(counts.captions, max(1, rows - counts.uncond))
    most = max(1, rows // (captions + counts.uncond))
    parts = range(1, counts.images + 1)
    return next(n for n in parts if counts.images % n == 0 and counts.images <= n * most)


def even_ranges(count: int, most: int) -> list[np.ndarray]:
    """Return 0..count-1 in as few index arrays of one size as possible, none longer than `most`."""
    return padded_ranges(count, -(-count // -(-count // most)))


def padded_ranges(count: int, size: int) -> list[np.ndarray]:
    """Return 0..count-1 in index arrays of `size`, the last one padded with the last index."""
    indices = np.minimum(np.arange(count + -count % size), count - 1)
    return np.split(indices, len(indices) // size)
