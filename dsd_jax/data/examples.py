"""What a benchmark is made of: items of captions and pictures, some of which fit each other."""

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

THREADS = 4  # that read and decode pictures


class Examples(NamedTuple):
    """A split's n items in order; their pictures are read when asked for.

    All items have equally many captions, J, and pictures, P. Where one of the two is 1, the first
    of the other is the one that fits; where both are 2, caption i fits picture i and not the other.

    captions: n tuples of J strings.
    pictures: n tuples of P keys; a picture that several items share has one key.
    kinds: n names of what each item is about, such as what its wrong candidate differs in.
    clusters: n; items of one cluster, which share pictures or captions, are not independent of each
        other, so that standard errors are of clusters.
    read: from a key and a size S to uint8 (S, S, 3).
    """

    captions: Sequence[tuple[str, ...]]
    pictures: Sequence[tuple[Hashable, ...]]
    kinds: Sequence[str]
    clusters: Sequence[Hashable]
    read: Callable[[Hashable, int], np.ndarray]

    @property
    def count(self) -> int:
        """The number of items, n."""
        return len(self.captions)

    def images(self, keys: Iterable[Hashable], size: int) -> np.ndarray:
        """Some pictures, uint8 (k, size, size, 3); several threads read.

        Raises:
            UserError: one of them cannot be read.
        """
        import grain  # takes a second to import

        chosen = grain.MapDataset.source(list(keys)).map(lambda key: self.read(key, size))
        found = list(chosen.to_iter_dataset(grain.ReadOptions(num_threads=THREADS)))
        return np.stack(found) if found else np.empty((0, size, size, 3), np.uint8)

    def unfolded(self) -> "Examples":
        """Items of one caption each: a 2x2 item becomes two, whose first picture fits."""
        if min(len(self.captions[0]), len(self.pictures[0])) == 1:
            return self
        both = [i for i in range(self.count) for _ in range(2)]
        turns = [turn for _ in range(self.count) for turn in (slice(None), slice(None, None, -1))]
        return Examples(
            [(self.captions[i][turn][0],) for i, turn in zip(both, turns, strict=True)],
            [self.pictures[i][turn] for i, turn in zip(both, turns, strict=True)],
            [self.kinds[i] for i in both],
            [self.clusters[i] for i in both],
            self.read,
        )

    def take(self, numbers: Iterable[int]) -> "Examples":
        """Some of the items."""
        numbers = list(numbers)
        columns = ([column[i] for i in numbers] for column in self[:-1])
        return Examples(*columns, self.read)


class Benchmark(NamedTuple):
    """Named splits of items.

    load: from one of `splits` to its items; raises `UserError` where files are missing or damaged.
    """

    name: str
    splits: tuple[str, ...]
    load: Callable[[str], Examples]
