"""A benchmark's splits, and the shots drawn from them."""

from collections import Counter

import numpy as np
import pytest

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.splits import (
    ShotDraw,
    count_shots,
    encode_shots,
    load_split,
)
from dsd_jax.data.examples import Benchmark
from dsd_jax.data.synthetic import triples
from dsd_jax.errors import UserError
from tests.few_shots import examples, few_model, pictures


def load(name):
    return examples(20) if name == "shots" else examples(0)


BENCHMARK = Benchmark("made", ("shots", "empty"), load)


def kinds_of(count: int) -> list[str]:
    """Kinds take turns, as in the emoji benchmark."""
    return [triples.KINDS[i % len(triples.KINDS)] for i in range(count)]


@pytest.mark.parametrize(("shots", "each"), [(16, {4: 1, 3: 4}), (25, {5: 5}), (3, {1: 3})])
def test_shots_are_balanced_over_kinds_and_without_repeats(shots, each):
    kinds = kinds_of(60)
    numbers = ShotDraw("a split", shots, 0).indices(kinds)
    assert len(set(numbers)) == shots
    counts = Counter(kinds[number] for number in numbers)
    assert Counter(counts.values()) == each


def test_where_a_kind_runs_out_others_take_its_place():
    kinds = ["few"] * 2 + ["many"] * 30
    numbers = ShotDraw("a split", 12, 0).indices(kinds)
    assert Counter(kinds[number] for number in numbers) == {"few": 2, "many": 10}


def test_shots_are_drawn_by_seed():
    draws = [set(ShotDraw("a split", 16, seed).indices(kinds_of(60))) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len(set(map(frozenset, draws))) == 3


def test_all_items_may_be_shots():
    assert sorted(ShotDraw("a split", 20, 0).indices(kinds_of(20))) == list(range(20))


@pytest.mark.parametrize("shots", [21, 1, 0, -4])
def test_more_shots_than_there_are_or_too_few(shots):
    with pytest.raises(UserError, match=f"shots is {shots}; expected 2 to 20, the number of items"):
        ShotDraw("a split", shots, 0).indices(kinds_of(20))


@pytest.mark.parametrize(
    ("asked", "count"), [(16, 16), (16.0, 16), (0.5, 10), (1.0, 20), (0.01, 2)]
)
def test_counts_and_fractions(asked, count):
    assert count_shots(BENCHMARK, "shots", asked) == count


@pytest.mark.parametrize("asked", [1.5, -0.5])
def test_neither_count_nor_fraction(asked):
    with pytest.raises(UserError, match=f"shots is {asked}; expected a number of items, or"):
        count_shots(BENCHMARK, "shots", asked)


def test_shots_are_the_drawn_items_encoded():
    model = few_model()
    numbers = ShotDraw("shots", 6, 3).indices(examples(20).kinds)
    items = encode_shots(Encoders(model), BENCHMARK, ShotDraw("shots", 6, 3))
    assert items.indices.tolist() == numbers
    expected = model.latents(pictures(20)[numbers, 1])
    np.testing.assert_allclose(items.latents[items.images[:, 1]], expected, rtol=0, atol=1e-5)
    states = model.encode_texts([f"a cat and {number}" for number in numbers])
    found = items.texts.states[items.captions[:, 0]]
    np.testing.assert_allclose(found, states, rtol=0, atol=1e-5)


def test_items_of_two_captions_are_learned_from_one_caption_at_a_time():
    folded = examples(3)._replace(captions=[(f"one {i}", f"other {i}") for i in range(3)])
    found = folded.unfolded()
    assert found.captions[2:4] == [("one 1",), ("other 1",)]
    assert found.images[2:4] == [((1, 0), (1, 1)), ((1, 1), (1, 0))]
    assert found.clusters[2:4] == [1, 1] and found.count == 6
    assert examples(3).unfolded() is not None and examples(3).unfolded().count == 3


def test_per_kind_takes_the_first_of_each_kind():
    assert load_split(BENCHMARK, "shots").indices == list(range(20))
    some = load_split(BENCHMARK, "shots", 2)
    assert some.indices == list(range(10)) and some.count == 10
    assert Counter(some.kinds) == dict.fromkeys(triples.KINDS, 2)
    assert load_split(BENCHMARK, "shots", 500).count == 20


def test_unknown_and_empty_splits():
    with pytest.raises(UserError, match="splits: 'test' is unknown; expected shots, empty"):
        load_split(BENCHMARK, "test")
    with pytest.raises(UserError, match="the split empty of made has no items"):
        load_split(BENCHMARK, "empty")
    with pytest.raises(UserError, match="shots_from: 'train' is unknown"):
        encode_shots(None, BENCHMARK, ShotDraw("train", 4, 0))
