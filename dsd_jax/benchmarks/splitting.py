"""Few-shot examples, validation and test items, cut from a benchmark without such splits."""

from collections import Counter
from collections.abc import Hashable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np

from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.errors import UserError

ALL = "all"  # the split that is cut


class SplitRule(NamedTuple):
    """A rule by which a benchmark is cut.

    name: "official": not at all; "apart": by seed, no cluster in two parts; "authors": the first
        rows are the shots, the others the test, whatever images they share.
    shots, validation: how many items, or as a float up to 1.0, which part of them.
    seed: what "apart" draws by.
    """

    name: str = "official"
    shots: float = 0.05
    validation: float = 0.05
    seed: int = 0


def apply_split_rule(benchmark: Benchmark, rule: SplitRule) -> Benchmark:
    """Return the benchmark with the splits "shots", "validation" (by the rule "apart") and "test".

    They are cut from its split "all". If it has one of these itself, only "all" is left of its own.

    Raises:
        UserError: there is no split "all".
    """
    if rule.name == "official":
        return benchmark
    if ALL not in benchmark.splits:
        raise UserError(
            f"split_rule is '{rule.name}', but {benchmark.name} comes in splits "
            f"({', '.join(benchmark.splits)}); set it to official."
        )
    names = ("shots", "validation", "test") if rule.name == "apart" else ("shots", "test")
    clash = set(names) & set(benchmark.splits)
    own = (ALL,) if clash else benchmark.splits
    return Benchmark(benchmark.name, (*names, *own), partial(load_part, benchmark, rule, names))


def load_part(benchmark: Benchmark, rule: SplitRule, names: Sequence[str], split: str) -> Examples:
    """Return a part by name, or one of the benchmark's own splits."""
    if split not in names:
        return benchmark.load(split)
    whole = benchmark.load(ALL)
    cut = first_rows if rule.name == "authors" else cut_apart
    indices = cut(whole.kinds, whole.clusters, rule)[split]
    if not indices:
        raise UserError(
            f"{benchmark.name}'s split {split} is empty: shots_part={rule.shots:g} and "
            f"validation_part={rule.validation:g} of {whole.count:,} items; change them."
        )
    return whole.take(indices)


def first_rows(kinds: Sequence, clusters: Sequence, rule: SplitRule) -> dict[str, Sequence[int]]:
    """Cut by the authors' rule: the first 5 % of the rows in the file's order, and all others.

    Their `custom_datasets.py` cuts RefCOCOg so; rows of one image fall on both sides.
    """
    count = amount(rule.shots, len(kinds))
    return {"shots": range(count), "test": range(count, len(kinds))}


def cut_apart(
    kinds: Sequence[str], clusters: Sequence[Hashable], rule: SplitRule
) -> dict[str, list[int]]:
    """Return indices of items by part, in order; drawn parts have equally many of each kind.

    A cluster's items all go to one part. Items of a part's clusters that it does not need, as it
    has enough of their kind, are in no part.

    Raises:
        UserError: there are not so many items.
    """
    rng = np.random.default_rng([rule.seed, len(kinds), 5])
    members: dict[Hashable, list[int]] = {}
    for index in rng.permutation(len(kinds)).tolist():
        members.setdefault(clusters[index], []).append(index)
    indices = {}
    for name, part in (("shots", rule.shots), ("validation", rule.validation)):
        field = f"{name}_part={part:g}"
        indices[name] = draw_clusters(members, kinds, amount(part, len(kinds)), field)
    indices["test"] = sorted(index for cluster in members.values() for index in cluster)
    return indices


def amount(part: float, count: int) -> int:
    """Return how many of `count` items a part is: up to 1.0 a fraction of them, else a number.

    The same rule as for `shots`: 1.0 is all of them. A config's number is a float.
    """
    return int(part * count) if isinstance(part, float) and part <= 1 else int(part)


def draw_clusters(members: dict, kinds: Sequence[str], count: int, field: str) -> list[int]:
    """Return `count` items of the first useful clusters in `members`, which are taken out of it.

    Raises:
        UserError: there are not so many.
    """
    left = Counter(kinds[index] for cluster in members.values() for index in cluster)
    if count > left.total():
        raise UserError(f"{field}: {count:,} items are asked for, and only {left.total():,} left.")
    wanted = quotas(left, count)
    drawn = []
    for cluster, cluster_members in list(members.items()):
        useful = []
        for index in cluster_members:
            if wanted[kinds[index]]:
                wanted[kinds[index]] -= 1
                useful.append(index)
        if useful:
            drawn += useful
            del members[cluster]
    return sorted(drawn)


def quotas(available: Counter, count: int) -> Counter:
    """Return how many of each kind to take, as equally as there are enough; `count` in total."""
    wanted: Counter = Counter()
    while wanted.total() < count:
        for kind in available:
            if wanted[kind] < available[kind] and wanted.total() < count:
                wanted[kind] += 1
    return wanted
