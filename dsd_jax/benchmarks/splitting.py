"""Few-shot examples, validation and test items, cut from a benchmark that has no such splits."""

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.errors import UserError

ALL = "all"  # the split that is cut


class Parts(NamedTuple):
    """How to cut.

    rule: "official": not at all; "apart": by seed, no cluster in two parts; "authors": the first
        rows are the shots, the others the test, whatever pictures they share.
    shots, validation: how many items, or as a float up to 1.0, which part of them.
    seed: what "apart" draws by.
    """

    rule: str = "official"
    shots: float = 0.05
    validation: float = 0.05
    seed: int = 0


def with_parts(benchmark: Benchmark, parts: Parts) -> Benchmark:
    """The benchmark with the splits "shots", "validation" (by the rule "apart") and "test".

    They are cut from its split "all". If it has one of these itself, only "all" is left of its own.

    Raises:
        UserError: there is no split "all".
    """
    if parts.rule == "official":
        return benchmark
    if ALL not in benchmark.splits:
        raise UserError(
            f"split_rule is '{parts.rule}', but {benchmark.name} comes in splits "
            f"({', '.join(benchmark.splits)}); set it to official."
        )
    names = ("shots", "validation", "test") if parts.rule == "apart" else ("shots", "test")
    clash = set(names) & set(benchmark.splits)
    own = (ALL,) if clash else benchmark.splits
    return Benchmark(benchmark.name, (*names, *own), partial(load_part, benchmark, parts, names))


def load_part(benchmark: Benchmark, parts: Parts, names: Sequence[str], split: str) -> Examples:
    """A part by name, or one of the benchmark's own splits."""
    if split not in names:
        return benchmark.load(split)
    whole = benchmark.load(ALL)
    cut = first_rows if parts.rule == "authors" else apart
    numbers = cut(whole.kinds, whole.clusters, parts)[split]
    if not numbers:
        raise UserError(
            f"{benchmark.name}'s split {split} is empty: shots_part={parts.shots:g} and "
            f"validation_part={parts.validation:g} of {whole.count:,} items; change them."
        )
    return whole.take(numbers)


def first_rows(kinds: Sequence, clusters: Sequence, parts: Parts) -> dict[str, Sequence[int]]:
    """The authors' rule: the first 5 % of the rows in the file's order, and all others.

    It is how their `custom_datasets.py` takes RefCOCOg's; rows of one picture fall on both sides.
    """
    count = amount(parts.shots, len(kinds))
    return {"shots": range(count), "test": range(count, len(kinds))}


def apart(kinds: Sequence[str], clusters: Sequence[Hashable], parts: Parts) -> dict[str, list[int]]:
    """Numbers of items by part, in order. What is drawn is balanced: equally many of each kind.

    Clusters are dealt out whole. Those items of a part's clusters that it does not need, as it has
    enough of their kind, are in no part.

    Raises:
        UserError: there are not so many items.
    """
    rng = np.random.default_rng([parts.seed, len(kinds), 5])
    members: dict[Hashable, list[int]] = {}
    for number in rng.permutation(len(kinds)).tolist():
        members.setdefault(clusters[number], []).append(number)
    found = {}
    for name, part in (("shots", parts.shots), ("validation", parts.validation)):
        field = f"{name}_part={part:g}"
        found[name] = draw_clusters(members, kinds, amount(part, len(kinds)), field)
    found["test"] = sorted(number for numbers in members.values() for number in numbers)
    return found


def amount(part: float, count: int) -> int:
    """Return how many of `count` items a part is: up to 1.0 a fraction of them, else a number.

    The same rule as for `shots`: 1.0 is all of them. A config's number is a float.
    """
    return int(part * count) if isinstance(part, float) and part <= 1 else int(part)


def draw_clusters(members: dict, kinds: Sequence[str], count: int, field: str) -> list[int]:
    """`count` items of the first clusters in `members` that are needed; these are taken out."""
    left = Counter(kinds[number] for numbers in members.values() for number in numbers)
    if count > left.total():
        raise UserError(f"{field}: {count:,} items are asked for, and only {left.total():,} left.")
    wanted = quotas(left, count)
    chosen = []
    for cluster, numbers in list(members.items()):
        useful = []
        for number in numbers:
            if wanted[kinds[number]]:
                wanted[kinds[number]] -= 1
                useful.append(number)
        if useful:
            chosen += useful
            del members[cluster]
    return sorted(chosen)


def quotas(available: Counter, count: int) -> Counter:
    """How many of each kind, as equally as there are enough; `count` in total."""
    wanted: Counter = Counter()
    while wanted.total() < count:
        for kind in available:
            if wanted[kind] < available[kind] and wanted.total() < count:
                wanted[kind] += 1
    return wanted
