"""The emoji benchmark's splits, the shots drawn from them, and what is computed once."""

from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import benchmark
from dsd_jax.benchmark import Split, draw_shots
from dsd_jax.data import emoji, triples
from dsd_jax.errors import UserError
from dsd_jax.methods import chosen_layers
from dsd_jax.terms import cross_attention_layers
from tests.few_items import few_items
from tests.few_shots import few_model


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with few_items(tmp_path_factory.mktemp("home")):
        yield


def kinds_of(count: int) -> list[str]:
    """Kinds take turns, as in the benchmark."""
    return [triples.KINDS[i % len(triples.KINDS)] for i in range(count)]


@pytest.mark.parametrize(("shots", "each"), [(16, {4: 1, 3: 4}), (25, {5: 5}), (3, {1: 3})])
def test_shots_are_balanced_over_kinds_and_without_repeats(shots, each):
    kinds = kinds_of(60)
    numbers = draw_shots("a split", kinds, shots, seed=0)
    assert len(set(numbers)) == shots
    counts = Counter(kinds[number] for number in numbers)
    assert Counter(counts.values()) == each


def test_shots_are_drawn_by_seed():
    draws = [set(draw_shots("a split", kinds_of(60), 16, seed)) for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1] and len(set(map(frozenset, draws))) == 3


def test_all_items_may_be_shots():
    assert sorted(draw_shots("a split", kinds_of(20), 20, 0)) == list(range(20))


@pytest.mark.parametrize("shots", [21, 1, 0, -4])
def test_more_shots_than_there_are_or_too_few(shots):
    with pytest.raises(UserError, match=f"shots is {shots}; expected 2 to 20, the number of items"):
        draw_shots("a split", kinds_of(20), shots, 0)


def test_shots_are_the_drawn_items_encoded(model):
    source = emoji.load_items("unseen-artist/shots")
    numbers = draw_shots("unseen-artist/shots", source.kinds, 6, 3)
    items = benchmark.load_shots(model, "unseen-artist/shots", 6, 3)
    assert items.numbers.tolist() == numbers
    expected = model.latents(source.images(numbers)[:, 1])
    np.testing.assert_allclose(items.latents[:, 1], expected, rtol=0, atol=1e-5)
    states = model.encode_texts([source.captions[number] for number in numbers])
    np.testing.assert_allclose(items.states[:, 0], states, rtol=0, atol=1e-5)


def test_per_kind_takes_the_first_of_each_kind(model):
    whole = benchmark.load_split(model, "unseen-artist/test")
    some = benchmark.load_split(model, "unseen-artist/test", 2)
    assert len(whole.source.kinds) == 15 and some.name == "unseen-artist/test"
    assert Counter(some.source.kinds) == dict.fromkeys(triples.KINDS, 2)
    assert some.source.captions == whole.source.captions[:10]
    np.testing.assert_array_equal(some.source.images([3]), whole.source.images([3]))
    np.testing.assert_array_equal(some.items.numbers, np.arange(10))
    np.testing.assert_allclose(some.items.latents, whole.items.latents[:10], rtol=0, atol=1e-5)
    everything = benchmark.load_split(model, "unseen-artist/test", 500)
    assert len(everything.source.kinds) == 15


def test_wanted_is_what_any_method_or_prompts_read(model):
    every, chosen = cross_attention_layers(model.unet), chosen_layers(model.unet)
    wanted = benchmark.wanted_for(model, ("attention",), chosen, [])
    assert (set(wanted.layers), wanted.error, wanted.uncond) == (set(chosen), False, False)
    wanted = benchmark.wanted_for(model, ("attention", "noise"), chosen, [])
    assert (set(wanted.layers), wanted.error, wanted.uncond) == (set(chosen), True, False)
    weights = {"weights": {"attention": {"lse": dict.fromkeys(every, 0)}}}
    wanted = benchmark.wanted_for(model, ("attention", "itm"), chosen, [{"lora": {}}, weights])
    assert (set(wanted.layers), wanted.error, wanted.uncond) == (set(every), True, True)


def test_weights_alone_need_no_second_look(model):
    frozen = object()
    tree = {"weights": {"dsd": {"timesteps": jnp.zeros(2)}}}
    for prompts in (tree, {}):
        split = Split("a split", None, None)
        found = benchmark.split_terms(model, split, None, 0, None, prompts, frozen)
        assert found is frozen
