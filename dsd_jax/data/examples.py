"""The items of a benchmark's split: captions and images, some of which fit each other."""

import sys
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from dsd_jax.errors import UserError
from dsd_jax.io.progress import Stage

THREADS = 4  # that read and decode images
MAX_KINDS = 40  # a table of more kinds would be unreadable: they become one
_NAMED = 5  # unreadable images in a message
_SMALL_SIDE = 8  # pixels; decoding is what takes time and what fails

# From an image's key and a size S to uint8 (S, S, 3), or with `io.images.OWN_SIZE` to the image as
# it is, (H, W, 3); keys are what the reader makes them.
ReadImage: TypeAlias = Callable[[Any, int], np.ndarray]


class Example(NamedTuple):
    """An item: J captions, P image keys, its kind (or "") and its cluster."""

    captions: tuple[str, ...]
    images: tuple[Hashable, ...]
    kind: str
    cluster: Hashable


class Examples(NamedTuple):
    """A split's n items in order; their images are read when asked for.

    All items have equally many captions, J, and images, P. Where one of the two is 1, the first
    of the other is the one that fits; where both are 2, caption i fits image i and not the other.

    captions: n tuples of J strings.
    images: n tuples of P keys; an image that several items share has one key.
    kinds: n names of what each item is about, such as what its wrong candidate differs in.
    clusters: n; items of one cluster, which share images or captions, are not independent of each
        other, so that standard errors are of clusters.
    read: from a key and a size S to uint8 (S, S, 3).
    """

    captions: Sequence[tuple[str, ...]]
    images: Sequence[tuple[Hashable, ...]]
    kinds: Sequence[str]
    clusters: Sequence[Hashable]
    read: ReadImage

    @classmethod
    def from_items(cls, items: Iterable[Example], read: ReadImage) -> "Examples":
        """Make the columns of the items; missing or too many kinds become one, "all"."""
        items = list(items)
        kinds = [item.kind for item in items]
        if not all(kinds) or len(set(kinds)) > MAX_KINDS:
            kinds = ["all"] * len(items)
        return cls(
            [item.captions for item in items],
            [item.images for item in items],
            kinds,
            [item.cluster for item in items],
            read,
        )

    @property
    def count(self) -> int:
        """Return the number of items, n."""
        return len(self.captions)

    def read_images(self, keys: Iterable[Hashable], size: int) -> np.ndarray:
        """Read images in several threads; returns uint8 (I, size, size, 3).

        Raises:
            UserError: one of them cannot be read.
        """
        import grain  # takes a second to import

        source = grain.MapDataset.source(list(keys)).map(lambda key: self.read(key, size))
        images = list(source.to_iter_dataset(grain.ReadOptions(num_threads=THREADS)))
        return np.stack(images) if images else np.empty((0, size, size, 3), np.uint8)

    def unfolded(self) -> "Examples":
        """Return items of one caption each: a 2x2 item becomes two, whose first image fits."""
        if min(len(self.captions[0]), len(self.images[0])) == 1:
            return self
        items = map(Example, self.captions, self.images, self.kinds, self.clusters)
        halves = [
            item._replace(captions=item.captions[i : i + 1], images=item.images[:: 1 - 2 * i])
            for item in items
            for i in (0, 1)
        ]
        return Examples.from_items(halves, self.read)

    def take(self, indices: Iterable[int]) -> "Examples":
        """Return the items of these indices, in their order."""
        indices = list(indices)
        return Examples(
            [self.captions[i] for i in indices],
            [self.images[i] for i in indices],
            [self.kinds[i] for i in indices],
            [self.clusters[i] for i in indices],
            self.read,
        )


class Benchmark(NamedTuple):
    """A benchmark: named splits of items.

    load: from one of `splits` to its items; raises `UserError` where files are missing or damaged.
    """

    name: str
    splits: tuple[str, ...]
    load: Callable[[str], Examples]


def skip_unreadable(examples: Examples, name: str) -> Examples:
    """Return the items all of whose images can be read; the others are counted on stderr.

    Every image is decoded once for this.

    Raises:
        UserError: none is left.
    """
    keys = list(dict.fromkeys(key for images in examples.images for key in images))
    reasons = _unreadable(examples, keys, name)
    if not reasons:
        return examples
    kept = [i for i, images in enumerate(examples.images) if reasons.keys().isdisjoint(images)]
    named = "; ".join(list(reasons.values())[:_NAMED]) + ("; ..." if len(reasons) > _NAMED else "")
    counts = (
        f"{name}: {len(reasons):,} of {len(keys):,} images cannot be read, and the "
        f"{examples.count - len(kept):,} of {examples.count:,} items with them are left out"
    )
    if not kept:
        raise UserError(f"{counts}, so that none remains: {named}")
    print(f"{counts}: {named}", file=sys.stderr)
    return examples.take(kept)


def _unreadable(examples: Examples, keys: list[Hashable], name: str) -> dict[Hashable, str]:
    """Return {key: what is wrong} of each image that cannot be read."""

    def problem(key: Hashable) -> str | None:
        try:
            examples.read(key, _SMALL_SIDE)
        except UserError as error:
            return str(error)
        return None

    with ThreadPoolExecutor(THREADS) as pool:
        reasons = {}
        with Stage(f"{name}: looking at images", len(keys)) as stage:
            for key, reason in zip(keys, pool.map(problem, keys), strict=True):
                stage.advance()
                if reason:
                    reasons[key] = reason
        return reasons
