"""Splits of a benchmark: which items are scored, and which are drawn as the few shots."""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.distributed import processes
from dsd_jax.errors import UserError
from dsd_jax.io.progress import Stage, Work


class Split(NamedTuple):
    """A split of a benchmark, of which the items at `indices` are scored."""

    name: str
    examples: Examples
    indices: list[int]

    @property
    def count(self) -> int:
        """The number of items that are scored."""
        return len(self.indices)

    @property
    def shape(self) -> tuple[int, int]:
        """The numbers of images and of captions of each item, P and J."""
        return len(self.examples.images[0]), len(self.examples.captions[0])

    @property
    def kinds(self) -> list[str]:
        """The kinds of the items that are scored."""
        return [self.examples.kinds[index] for index in self.indices]

    @property
    def clusters(self) -> list[Hashable]:
        """The clusters of the items that are scored."""
        return [self.examples.clusters[index] for index in self.indices]


def load_split(benchmark: Benchmark, name: str, per_kind: int | None = None) -> Split:
    """Load a split, of which all items are scored, or the first `per_kind` of each kind.

    Raises:
        UserError: the split is unknown or empty, or its files are missing or damaged.
    """
    examples = _load_examples(benchmark, name, "splits")
    counts: Counter[str] = Counter()
    indices = []
    for index, kind in enumerate(examples.kinds):
        counts[kind] += 1
        if per_kind is None or counts[kind] <= per_kind:
            indices.append(index)
    return Split(name, examples, indices)


def load_shots_split(benchmark: Benchmark, name: str) -> Examples:
    """Load the split that shots are drawn from, with one caption or one image per item.

    Raises:
        UserError: as `load_split`.
    """
    return _load_examples(benchmark, name, "shots_from").unfolded()


def _load_examples(benchmark: Benchmark, name: str, field: str) -> Examples:
    """Load the split that the config's `field` names."""
    if name not in benchmark.splits:
        known = ", ".join(benchmark.splits)
        raise UserError(f"{field}: '{name}' is unknown; expected {known}.")
    examples = benchmark.load(name)
    if not examples.count:
        raise UserError(f"{field}: the split {name} of {benchmark.name} has no items.")
    return examples


class ShotDraw(NamedTuple):
    """A draw of `count` shots from a split by `seed`."""

    split: str
    count: int
    seed: int

    def indices(self, kinds: Sequence[str]) -> list[int]:
        """Return the indices of the drawn items, equally many of each kind as far as possible.

        Args:
            kinds: of all items of the split.

        Raises:
            UserError: there are fewer items, or the shots are too few to hold some of them out.
        """
        if not 2 <= self.count <= len(kinds):
            raise UserError(
                f"shots is {self.count}; expected 2 to {len(kinds)}, the number of items of "
                f"{self.split}."
            )
        order = np.random.default_rng([self.seed, self.count, 8]).permutation(len(kinds))
        ordered = np.asarray(kinds)[order]
        queues = {kind: iter(order[ordered == kind]) for kind in dict.fromkeys(kinds)}
        drawn: list[int] = []
        while len(drawn) < self.count:
            for kind in list(queues):
                index = next(queues[kind], None)
                if index is None:
                    del queues[kind]  # all items of this kind are drawn
                elif len(drawn) < self.count:
                    drawn.append(int(index))
        return drawn


def encode_shots(
    encoders: Encoders, benchmark: Benchmark, draw: ShotDraw, *, progress: bool = False
) -> EncodedItems:
    """Return the drawn items on all hosts, each of which reads and encodes its part.

    Raises:
        UserError: as `ShotDraw.indices`.
    """
    examples = load_shots_split(benchmark, draw.split)
    indices = draw.indices(examples.kinds)
    images = {key for index in indices for key in examples.images[index]}
    captions = {caption for index in indices for caption in examples.captions[index]}
    total = sum(len(processes.local_range(len(x))) for x in (images, captions))  # of this host
    with Stage(f"encoding {draw.count} shots", total, shown=progress) as stage:
        return encode(encoders, examples, indices, split_over_hosts=True, work=Work(stage, 1))


def check_shots(benchmark: Benchmark, name: str, requested: Sequence[float], seed: int) -> None:
    """Check that a split has as many items as there are shots requested.

    Raises:
        UserError: it has not, or there is no such split.
    """
    kinds = load_shots_split(benchmark, name).kinds
    for number in requested:
        ShotDraw(name, count_shots(benchmark, name, number), seed).indices(kinds)


def count_shots(benchmark: Benchmark, name: str, requested: float) -> int:
    """Return the number of shots, requested as a number of items or as a fraction up to 1.0.

    Raises:
        UserError: it is neither.
    """
    if isinstance(requested, float) and 0 < requested <= 1:
        return max(2, round(requested * load_shots_split(benchmark, name).count))
    if requested != int(requested):
        raise UserError(
            f"shots is {requested}; expected a number of items, or a fraction up to 1.0."
        )
    return int(requested)
