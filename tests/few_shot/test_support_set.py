"""The support set: its split, its noises, its cached outputs, its temperatures."""

from functools import partial

import jax
import numpy as np
import pytest

from dsd_jax.few_shot import batches, support_set
from dsd_jax.io import host_arrays
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import OutputSpec, cross_attention_layers
from dsd_jax.training.early_stopping import LEAST, split
from tests.few_shots import COUNT, TIMESTEPS, few_model, random_items, recipe

pytestmark = pytest.mark.usefixtures("quickly_compiled")


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def seen(model):
    return support_set.cache_frozen_outputs(model, random_items(model), TIMESTEPS, 0, noises=2)


@pytest.mark.parametrize(
    ("count", "part", "held"),
    [(256, 0.2, 51), (16, 0.2, 5), (10, 0.9, 5), (12, 0.0, 5), (3, 0.2, 1), (2, 0.2, 1)],
)
def test_part_of_the_shots_is_held_out(count, part, held):
    learn, held_out = split(range(count), part, seed=0)
    assert len(held_out) == held
    assert sorted([*learn, *held_out]) == list(range(count))
    again = split(range(count), part, seed=0)
    np.testing.assert_array_equal(np.concatenate(again), np.concatenate([learn, held_out]))


def test_singletons_are_split_as_ever():
    """By one permutation, so that runs of earlier versions are repeated to the digit."""
    learn, held_out = split(range(100, 356), 0.2, seed=3)
    order = np.random.default_rng([3, 6]).permutation(256)
    np.testing.assert_array_equal(held_out, order[:51])
    np.testing.assert_array_equal(learn, order[51:])


@pytest.mark.parametrize(("sizes", "part"), [([7] * 12, 0.2), ([1, 2, 30, 4, 5, 6] * 3, 0.4)])
def test_items_of_a_cluster_are_on_one_side(sizes, part):
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    np.random.default_rng(0).shuffle(clusters)
    for seed in range(5):
        learn, held_out = split(clusters, part, seed)
        assert not set(clusters[learn]) & set(clusters[held_out])
        assert sorted([*learn, *held_out]) == list(range(len(clusters)))
        assert len(set(clusters[held_out])) >= LEAST and len(held_out) <= len(clusters) / 2


def test_one_cluster_cannot_be_split():
    learn, held_out = split(["same"] * 20, 0.2, 0)
    assert len(learn) == 20 and not len(held_out)


def test_another_seed_holds_out_others():
    assert set(split(range(256), 0.2, 0)[1]) != set(split(range(256), 0.2, 1)[1])


def test_noises_are_no_seeds_of_evaluation_and_no_other_runs(model, seen, monkeypatch):
    """Seeds of runs are 0, 1, 2..., and their noise is what is scored."""
    monkeypatch.setattr(support_set, "stacked", lambda parts, rows: None)
    every = [
        support_set.cache_frozen_outputs(model, seen.items, TIMESTEPS, seed, noises=4).seeds
        for seed in range(5)
    ]
    assert len(set(np.concatenate(every)) - set(range(100))) == 20


def test_only_what_recipes_read_is_kept_and_on_the_host(model, seen):
    settings = recipe(model, methods=("relative",), denoise=0.0)
    outputs = support_set.outputs_read_by(model.unet, [settings])
    assert outputs == OutputSpec((), error=True, uncond=True)
    some = support_set.cache_frozen_outputs(
        model, seen.items, TIMESTEPS, 0, noises=2, outputs=outputs
    )
    assert (some.outputs.lse, some.outputs.lse_uncond, some.outputs.norms) == ({}, {}, {})
    np.testing.assert_allclose(some.outputs.error, seen.outputs.error, rtol=1e-5, atol=1e-5)
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(some.outputs))
    assert all(type(x) is np.ndarray for x in jax.tree.leaves(seen.outputs))


@pytest.mark.parametrize(
    ("changes", "layers", "error", "uncond", "norms"),
    [
        ({"methods": ("attention",), "denoise": 0.0}, "chosen", False, False, ()),
        ({"methods": ("attention",), "denoise": 1.0}, "chosen", True, True, ()),
        ({"methods": ("noise-l1",), "denoise": 0.0}, "none", True, False, ("l1",)),
        ({"methods": ("dsd",), "kinds": ("weights",), "denoise": 0.0}, "all", True, True, ()),
    ],
)
def test_what_recipes_read(model, changes, layers, error, uncond, norms):
    expected = {
        "none": (),
        "chosen": score_functions.chosen_layers(model.unet),
        "all": cross_attention_layers(model.unet),
    }
    found = support_set.outputs_read_by(model.unet, [recipe(model, **changes)])
    assert found == OutputSpec(expected[layers], error, uncond, norms)


def test_mapped_and_in_pieces_is_the_same(model, seen, monkeypatch):
    """The temperature, the batches and the weights that are made of it, too."""
    monkeypatch.setattr(host_arrays, "IN_MEMORY", 0)
    size = sum(x.nbytes for x in jax.tree.leaves(seen.outputs)) // COUNT
    monkeypatch.setattr(support_set, "TOGETHER", 3 * size)
    mapped = support_set.cache_frozen_outputs(model, seen.items, TIMESTEPS, 0, noises=2)
    assert all(isinstance(x, np.memmap) for x in jax.tree.leaves(mapped.outputs))
    assert len(mapped.ranges(COUNT)) == -(-COUNT // 3)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, mapped.outputs, seen.outputs)
    settings = recipe(model)
    for name in settings.methods:
        one, other = (support_set.zero_shot_temperature(x, name, settings) for x in (mapped, seen))
        close(one, other)
    one, other = (
        batches.BatchSampler(model.mesh, x, np.arange(8), settings, 0).batch(3)
        for x in (mapped, seen)
    )
    jax.tree.map(close, one.items, other.items)


def test_terms_of_all_noises(seen):
    assert seen.outputs.error.shape == (2 * COUNT, 1, 2 * len(TIMESTEPS))
    assert len(set(seen.seeds)) == 2
    second = seen.for_noise(1)
    np.testing.assert_array_equal(second.error, seen.outputs.error[:, :, 2:])
    np.testing.assert_array_equal(second.error_uncond, seen.outputs.error_uncond[:, 2:])
    for layer, lse in second.lse.items():
        np.testing.assert_array_equal(lse, seen.outputs.lse[layer][:, :, 2:])
        np.testing.assert_array_equal(
            second.lse_uncond[layer], seen.outputs.lse_uncond[layer][:, 2:]
        )
    assert np.abs(seen.outputs.error[:, :, :2] - seen.outputs.error[:, :, 2:]).min() > 0


def test_some_of_the_shots(seen):
    some = seen.take(np.array([3, 0]))
    np.testing.assert_array_equal(some.items.indices, [3, 0])
    np.testing.assert_array_equal(some.outputs.error, seen.outputs.error[np.array([6, 7, 0, 1])])


def test_scores(model, seen):
    settings = recipe(model)
    terms = seen.for_noise(1)
    scores = support_set.item_scores(terms, COUNT, "relative", settings)
    assert scores.shape == (COUNT, 2)
    expected = score_functions.score(terms, "relative", settings.layers)
    np.testing.assert_array_equal(scores.ravel(), expected[:, 0])


@pytest.mark.parametrize(
    ("mean", "unit"), [(1.0, 0.5), (2.0, 0.25), (0.0, 4.0), (-1.0, 4 * 2**0.5)]
)
@pytest.mark.parametrize("size", [1.0, 1e-3])
def test_unit_of_margins(model, seen, monkeypatch, mean, unit, size):
    """Normal margins of unit variance are best told in units of 1 / (2 mean); or in the largest."""
    margins = np.random.default_rng(0).normal(mean, 1, 10_000)
    margins += mean - margins.mean()
    scores = size * np.stack([margins, np.zeros_like(margins)], axis=1)
    monkeypatch.setattr(support_set.SupportSet, "frozen_scores", lambda *_: scores)
    found = support_set.zero_shot_temperature(seen, "relative", recipe(model))
    np.testing.assert_allclose(found, size * unit, rtol=0.1)


def test_learned_weights_count_for_their_method(model, seen):
    settings, layer = recipe(model), next(iter(seen.outputs.lse))
    weights = {"noise": {"lse": {layer: np.ones(2, np.float32)}}}
    terms = seen.for_noise(0)
    for name, changes in (("noise", True), ("relative", False)):
        learned, frozen = (
            support_set.item_scores(terms, COUNT, name, settings, x) for x in (weights, {})
        )
        assert (np.abs(learned - frozen).max() > 1e-3) == changes
