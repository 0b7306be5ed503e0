"""Fitted score weights: they find a planted effect, and stay zero-shot where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.benchmarks.encoded_items import EncodedItems
from dsd_jax.config.recipes import Recipe
from dsd_jax.few_shot import score_weights, support_set
from dsd_jax.few_shot.support_set import SupportSet
from dsd_jax.matching.forward import Terms
from tests.few_shots import LORA

COUNT, HEADS, TIMES, NOISES = 80, 3, 2, 2
LAYERS = ("down", "up")
RECIPE = Recipe(
    kinds=("weights",),
    methods=("attention", "dsd"),
    layers=("down",),
    ridges=(0.3, 3.0, 30.0),
    held_out=0.25,
    **{name: LORA[name] for name in LORA.keys() - {"kinds", "methods", "ridges", "held_out"}},
)


def random_terms(seed: int) -> Terms:
    """Return random outputs whose zero-shot score is right a little more often than chance."""
    rng = np.random.default_rng(seed)
    rows, columns = 2 * COUNT, TIMES * NOISES

    def draw(*shape):
        return rng.normal(size=(rows, *shape)).astype(np.float32)

    terms = Terms(
        {layer: draw(1, columns, HEADS) for layer in LAYERS},
        {layer: draw(columns, HEADS) for layer in LAYERS},
        10 + draw(1, columns),
        10 + draw(columns),
    )
    terms.lse["down"][::2] += 0.2
    return terms


def with_shift(terms: Terms, layer: str, head: int, by: float) -> Terms:
    """Return the outputs with higher scores of one head for the matching candidates."""
    lse = terms.lse[layer].copy()
    lse[::2, ..., head] += by
    return terms._replace(lse={**terms.lse, layer: lse})


def as_shots(terms: Terms) -> SupportSet:
    rows = np.arange(COUNT)
    items = EncodedItems(None, None, np.stack([rows, rows], axis=1), rows[:, None], rows, rows)
    terms = jax.tree.map(jnp.asarray, terms)
    return SupportSet(items, np.arange(TIMES), np.arange(NOISES), terms)


def accuracy(seen: SupportSet, name: str, weights: dict | None) -> float:
    score_weights_of = {} if weights is None else {name: weights}
    every = [
        support_set.item_scores(terms, COUNT, name, RECIPE, score_weights_of)
        for terms in score_weights.outputs_by_noise(seen)
    ]
    return float(np.mean([scores[:, 0] > scores[:, 1] for scores in every]))


@pytest.mark.parametrize("name", ["attention", "dsd"])
def test_a_planted_head_is_found(name):
    seen = as_shots(with_shift(random_terms(0), "up", 1, 1.5))
    weights = score_weights.fit_weights(seen, RECIPE, name, 0).weights
    found = weights["lse"]["up"]
    assert np.argmax(np.abs(found)) == 1 and found[1] > 0
    assert all(found[1] > 2 * np.abs(found[other]) for other in (0, 2))
    fresh = as_shots(with_shift(random_terms(1), "up", 1, 1.5))
    assert accuracy(fresh, name, None) < 0.65
    assert accuracy(fresh, name, weights) > 0.8
    assert (
        set(weights)
        == {
            "attention": {"lse", "timesteps"},
            "dsd": {"lse", "timesteps", "lse_uncond", "error"},
        }[name]
    )


def test_a_planted_head_that_is_wrong_counts_against():
    seen = as_shots(with_shift(random_terms(0), "up", 1, -1.5))
    weights = score_weights.fit_weights(seen, RECIPE, "attention", 0).weights
    assert weights["lse"]["up"][1] < 0


def test_what_tells_nothing_gets_no_weight():
    """Both candidates alike: nothing can serve the held-out items better than zero-shot does."""
    terms = random_terms(0)
    alike = jax.tree.map(lambda x: np.repeat(x[::2], 2, axis=0), terms)
    weights = score_weights.fit_weights(as_shots(alike), RECIPE, "attention", 0).weights
    for leaf in jax.tree.leaves(weights):
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf))


def test_noise_is_not_learned():
    """Random numbers seem to serve some few items by chance; hardly ever by a standard error."""
    few = [as_shots(random_terms(seed)).take(np.arange(16)) for seed in range(12)]
    found = [score_weights.fit_weights(seen, RECIPE, "attention", 0).weights for seen in few]
    assert sum(any(np.any(x) for x in jax.tree.leaves(weights)) for weights in found) <= 3


def test_folds_leave_every_item_out_once():
    for count in (80, 16, 3):
        apart = score_weights.left_out_by_fold(range(count), 0)
        assert apart.shape == (min(score_weights.FOLDS, count), count)
        assert (apart.sum(axis=0) == 1).all()
        assert np.ptp(apart.sum(axis=1)) <= 1
    assert (
        score_weights.left_out_by_fold(range(80), 0) != score_weights.left_out_by_fold(range(80), 1)
    ).any()


def test_items_left_out_are_not_learned_from():
    """What a fold learns does not depend on the items that it leaves out."""
    terms, apart = random_terms(0), score_weights.left_out_by_fold(range(COUNT), 0)
    found = []
    for by in (0.0, 5.0):
        lse = terms.lse["up"].copy()
        lse[2 * np.flatnonzero(apart[0])] += by
        seen = as_shots(terms._replace(lse={**terms.lse, "up": lse}))
        temperature = support_set.zero_shot_temperature(as_shots(terms), "attention", RECIPE)
        units = score_weights.weight_units(as_shots(terms), "attention", temperature)
        every = score_weights.outputs_by_noise(seen)
        data = score_weights.Regression(every, units, 1.0)
        found.append(score_weights._regress(RECIPE, "attention", data, 1.0, ~apart[0]))
    for one, other in zip(*map(jax.tree.leaves, found), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_folds_keep_clusters_whole():
    clusters = np.repeat(np.arange(12), 3)
    apart = score_weights.left_out_by_fold(clusters, 0)
    assert (apart.sum(axis=0) == 1).all()
    for fold in apart:
        assert not set(clusters[fold]) & set(clusters[~fold])


def test_a_stronger_prior_stays_closer_to_zero_shot():
    seen = as_shots(with_shift(random_terms(0), "up", 1, 1.5))
    sizes = [
        sum(float(jnp.abs(x).sum()) for x in jax.tree.leaves(weights))
        for ridge in (0.3, 30.0)
        for weights, _ in [
            score_weights.fit_weights(
                seen, RECIPE.model_copy(update={"ridges": (ridge,)}), "attention", 0
            )
        ]
    ]
    assert 0 < sizes[1] < sizes[0]
