"""Items: the two pictures of one share their noise, and nothing else does."""

import jax
import numpy as np
import pytest

from dsd_jax import diffusion
from dsd_jax.items import Items, candidate_scores, encode, item_terms
from dsd_jax.matching import match_terms
from tests.few_shots import COUNT, TIMESTEPS, few_model, pictures, random_items

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SEEDS = (3, 5)


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def items(model):
    return random_items(model)


@pytest.fixture(scope="module")
def terms(model, items):
    return item_terms(model, items, TIMESTEPS, SEEDS)


def test_encoding(model, items):
    assert items.latents.shape == (COUNT, 2, *model.latent_shape)
    assert items.states.shape == (COUNT, 1, 77, 12) and items.pictures == 2
    np.testing.assert_array_equal(items.numbers, np.arange(COUNT))
    images = pictures()
    np.testing.assert_allclose(items.latents[3, 1], model.latents(images[3, 1:])[0], atol=1e-5)
    again = encode(model, [["a cat and 3"]], images[3:4], [3])
    np.testing.assert_allclose(again.states[0], items.states[3], atol=1e-5)


def test_some_keep_their_numbers(items):
    some = items.take([4, 1])
    np.testing.assert_array_equal(some.numbers, [4, 1])
    np.testing.assert_array_equal(some.latents, items.latents[np.array([4, 1])])
    np.testing.assert_array_equal(some.states, items.states[np.array([4, 1])])


def test_terms_are_those_of_the_matching_engine(model, items, terms):
    """Item 2's, by hand: candidates side by side, and a seed's timesteps side by side."""
    seeds, steps = np.repeat(SEEDS, 2), np.tile(TIMESTEPS, 2)
    noise = diffusion.keyed_noise(seeds, np.array([2]), steps, model.latent_shape)[0]
    expected = match_terms(model, items.latents[2], items.states[2], noise, steps)
    for ours, one in zip(jax.tree.leaves(terms), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours[4:6], one, rtol=1e-5, atol=1e-5)


def test_candidates_share_their_noise_and_items_do_not(model, items):
    """One picture and caption everywhere: only noise is left to differ."""
    same = Items(
        np.broadcast_to(items.latents[:1, :1], items.latents.shape),
        np.broadcast_to(items.states[:1], items.states.shape),
        items.numbers,
    )
    error = np.asarray(item_terms(model, same, TIMESTEPS, SEEDS).error)[:, 0]
    error = error.reshape(COUNT, 2, len(SEEDS), len(TIMESTEPS))
    np.testing.assert_allclose(error[:, 0], error[:, 1], rtol=0, atol=1e-5)
    assert np.diff(np.sort(error[:, 0].ravel())).min() > 1e-5


def test_noise_goes_with_the_items_number_and_the_seed(model, items, terms):
    """Not with the place among others."""
    order = np.random.default_rng(0).permutation(COUNT)
    moved = item_terms(model, items.take(order), TIMESTEPS, SEEDS[::-1])
    rows = (2 * order[:, None] + np.arange(2)).ravel()
    columns = [2, 3, 0, 1]
    np.testing.assert_allclose(moved.error, terms.error[rows][:, :, columns], rtol=1e-5, atol=1e-5)
    for layer, lse in moved.lse.items():
        np.testing.assert_allclose(lse, terms.lse[layer][rows][:, :, columns], rtol=1e-5, atol=1e-5)


def test_scores_of_candidates_side_by_side():
    scores = candidate_scores(np.arange(6.0)[:, None], 3)
    np.testing.assert_array_equal(scores, [[0, 1], [2, 3], [4, 5]])
