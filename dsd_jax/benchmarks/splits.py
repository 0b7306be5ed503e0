"""A benchmark's splits: which of their items are scored, and which are the few shots."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.errors import UserError


class Split(NamedTuple):
    """A split, of whose items those with `numbers` are looked at."""

    name: str
    examples: Examples
    numbers: list[int]

    @property
    def count(self) -> int:
        """How many items are looked at."""
        return len(self.numbers)

    @property
    def kinds(self) -> list[str]:
        """Of these items."""
        return [self.examples.kinds[number] for number in self.numbers]

    @property
    def clusters(self) -> list:
        """Of these items."""
        return [self.examples.clusters[number] for number in self.numbers]


def load_split(benchmark: Benchmark, name: str, per_kind: int | None = None) -> Split:
    """A split, or only the first `per_kind` items of each kind.

    Raises:
        UserError: the split is unknown or empty, or its files are missing or damaged.
    """
    examples = load_examples(benchmark, name, "splits")
    seen: dict[str, int] = {}
    numbers = []
    for number, kind in enumerate(examples.kinds):
        seen[kind] = seen.get(kind, 0) + 1
        if per_kind is None or seen[kind] <= per_kind:
            numbers.append(number)
    return Split(name, examples, numbers)


def load_examples(benchmark: Benchmark, name: str, field: str) -> Examples:
    """The items of a split that the config's `field` names."""
    if name not in benchmark.splits:
        known = ", ".join(benchmark.splits)
        raise UserError(f"{field}: '{name}' is unknown; expected {known}.")
    examples = benchmark.load(name)
    if not examples.count:
        raise UserError(f"{field}: the split {name} of {benchmark.name} has no items.")
    return examples


def load_shots(
    encoders: Encoders, benchmark: Benchmark, name: str, count: int, seed: int
) -> EncodedItems:
    """`count` items of a split by seed, on all hosts, each of which read and encoded its part.

    Raises:
        UserError: there are not so many items, or too few to learn from some and hold out others.
    """
    examples = load_examples(benchmark, name, "shots_from").unfolded()
    indices = draw_shots(name, examples.kinds, count, seed)
    return encode(encoders, examples, indices, split_over_hosts=True)


def count_shots(benchmark: Benchmark, name: str, asked: float) -> int:
    """How many items of a split `asked` is: a number of them, or a fraction up to 1.0.

    Raises:
        UserError: it is neither.
    """
    if isinstance(asked, float) and 0 < asked <= 1:
        count = load_examples(benchmark, name, "shots_from").unfolded().count
        return max(2, round(asked * count))
    if asked != int(asked):
        raise UserError(f"shots is {asked}; expected a number of items, or a fraction up to 1.0.")
    return int(asked)


def draw_shots(name: str, kinds: Sequence[str], count: int, seed: int) -> list[int]:
    """The numbers of `count` items by seed, equally many of each kind as far as that goes.

    Raises:
        UserError: as `load_shots`.
    """
    if not 2 <= count <= len(kinds):
        raise UserError(
            f"shots is {count}; expected 2 to {len(kinds)}, the number of items of {name}."
        )
    order = np.random.default_rng([seed, count, 8]).permutation(len(kinds))
    ordered = np.asarray(kinds)[order]
    turns = {kind: iter(order[ordered == kind]) for kind in dict.fromkeys(kinds)}
    chosen: list[int] = []
    while len(chosen) < count:
        for kind in list(turns):
            number = next(turns[kind], None)
            if number is None:
                del turns[kind]  # of this kind there are no more
            elif len(chosen) < count:
                chosen.append(int(number))
    return chosen
