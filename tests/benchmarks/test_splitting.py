from collections import Counter

import numpy as np
import pytest

from dsd_jax.benchmarks.splitting import SplitRule, apply_split_rule
from dsd_jax.data.examples import Benchmark, Examples
from dsd_jax.errors import UserError

COUNT = 600
KINDS = ["common" if i % 6 else "rare" for i in range(COUNT)]  # 100 rare ones
CLUSTERS = [i // 4 for i in range(COUNT)]


def whole(splits=("all",)):
    def load(split):
        captions, pictures = [(str(i),) for i in range(COUNT)], [(i,) for i in range(COUNT)]
        return Examples(captions, pictures, KINDS, CLUSTERS, None)

    return Benchmark("made-up", splits, load)


def cut(*parts):
    benchmark = apply_split_rule(whole(), SplitRule(*parts))
    return {name: benchmark.load(name) for name in benchmark.splits}


def test_clusters_stay_together_and_kinds_are_balanced():
    parts = cut("apart", 0.1, 30, 0)
    assert list(parts) == ["shots", "validation", "test", "all"]
    assert Counter(parts["shots"].kinds) == {"common": 30, "rare": 30}
    assert Counter(parts["validation"].kinds) == {"common": 15, "rare": 15}
    assert parts["all"].count == COUNT
    seen = [set(parts[name].clusters) for name in ("shots", "validation", "test")]
    assert sum(map(len, seen)) == len(set.union(*seen)) == COUNT // 4
    for part in parts.values():  # in order, so that "the first ten" mean something
        numbers = [number for (number,) in part.images]
        assert numbers == sorted(numbers)


def test_what_is_scarce_is_made_up_for():
    assert Counter(cut("apart", 300, 0.05, 0)["shots"].kinds) == {"common": 200, "rare": 100}


def test_parts_follow_from_the_seed():
    first, again, other = (cut("apart", 0.1, 0.1, seed) for seed in (1, 1, 2))
    for name in ("shots", "validation", "test"):
        assert first[name][:4] == again[name][:4]
        assert first[name].images != other[name].images


def test_the_authors_take_the_first_rows():
    parts = cut("authors", 0.05, 0.0, 0)
    assert list(parts) == ["shots", "test", "all"]
    numbers = [number for name in ("shots", "test") for (number,) in parts[name].images]
    assert parts["shots"].count == 30 and numbers == list(range(COUNT))
    assert set(parts["shots"].clusters) & set(parts["test"].clusters)  # theirs are not apart


@pytest.mark.parametrize(("part", "count"), [(1.0, COUNT), (1, 1), (2.0, 2), (0.5, COUNT // 2)])
def test_one_rule_for_parts_and_numbers(part, count):
    """Up to 1.0 a float is a part of the items, as for `shots`; 1.0 is all of them."""
    assert apply_split_rule(whole(), SplitRule("authors", part, 0)).load("shots").count == count
    assert cut_shots("apart", part) == count


def cut_shots(rule, part):
    return apply_split_rule(whole(), SplitRule(rule, part, 0)).load("shots").count


def test_official_splits_are_left_alone():
    benchmark = whole(("train", "test"))
    assert apply_split_rule(benchmark, SplitRule()) is benchmark


def test_own_splits_of_other_names_are_kept():
    assert apply_split_rule(whole(("all", "verb")), SplitRule("apart")).splits[3:] == (
        "all",
        "verb",
    )
    assert apply_split_rule(whole(("all", "test")), SplitRule("apart")).splits[2:] == (
        "test",
        "all",
    )


@pytest.mark.parametrize(
    ("parts", "split", "message"),
    [
        (("apart", 601), "test", "shots_part=601: 601 items are asked for, and only 600 left"),
        (("apart", 500, 400), "test", "validation_part=400: 400 items are asked for, and only"),
        (("apart", 0.001), "shots", "made-up's split shots is empty: shots_part=0.001"),
        (("authors", 0.0), "shots", "made-up's split shots is empty: shots_part=0"),
        (("apart", 600, 0), "test", "made-up's split test is empty"),
    ],
)
def test_what_cannot_be_cut(parts, split, message):
    with pytest.raises(UserError, match=message):
        apply_split_rule(whole(), SplitRule(*parts)).load(split)


def test_benchmarks_with_official_splits_alone_are_not_cut():
    with pytest.raises(UserError, match=r"comes in splits \(train, test\); set it to official"):
        apply_split_rule(whole(("train", "test")), SplitRule("apart"))


def test_a_large_set_is_cut_in_little_time():
    kinds = np.random.default_rng(0).choice(["a", "b", "c"], 100_000).tolist()
    examples = Examples([()] * 100_000, [()] * 100_000, kinds, range(100_000), None)
    benchmark = apply_split_rule(
        Benchmark("big", ("all",), lambda _: examples), SplitRule("apart", 0.05)
    )
    assert benchmark.load("shots").count == 5000
