"""Encoded items: all candidates of an item share its noise, and no two items do."""

from functools import partial

import jax
import numpy as np
import pytest

from dsd_jax.benchmarks.encoded_items import EncodedItems, encode, item_outputs
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.diffusion import noising
from dsd_jax.io import host_arrays
from dsd_jax.matching.batching import match_terms
from tests.few_shots import COUNT, TIMESTEPS, examples, few_model, pictures, random_items

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
    return item_outputs(model, items, TIMESTEPS, SEEDS)


def test_encoding(model, items):
    assert items.latents.shape == (2 * COUNT, *model.latent_shape)
    assert items.texts.states.shape == (COUNT, 77, 12) and items.texts.pooled.shape == (COUNT, 0)
    assert items.images.shape == (COUNT, 2) and items.captions.shape == (COUNT, 1)
    np.testing.assert_array_equal(items.indices, np.arange(COUNT))
    expected = model.latents(pictures()[3, 1:])[0]
    np.testing.assert_allclose(items.latents[items.images[3, 1]], expected, atol=1e-5)
    states = model.encode_texts(["a cat and 3"])[0]
    np.testing.assert_allclose(items.texts.states[items.captions[3, 0]], states, atol=1e-5)


def test_what_items_share_is_encoded_once(model):
    """Two items have the same images in reverse order, and the same captions."""
    source = examples(2)
    source = source._replace(
        captions=[("a cat", "a dog")] * 2, images=[((0, 0), (1, 0)), ((1, 0), (0, 0))]
    )
    items = encode(Encoders(model), source, [1, 0])
    assert len(items.latents) == len(items.texts.states) == 2
    np.testing.assert_array_equal(items.images[0], items.images[1][::-1])
    np.testing.assert_array_equal(items.captions[0], items.captions[1])
    np.testing.assert_array_equal(items.indices, [1, 0])


def test_many_items_are_encoded_in_pieces_and_mapped(model, items, monkeypatch):
    monkeypatch.setattr(host_arrays, "IN_MEMORY", 0)
    monkeypatch.setattr("dsd_jax.benchmarks.encoded_items.ENCODED_TOGETHER", 3)
    found = random_items(model)
    assert isinstance(found.latents, np.memmap) and isinstance(found.texts.states, np.memmap)
    close = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, found[:4], items[:4])


@pytest.mark.parametrize("several", ["images", "captions"])
def test_some_candidates(model, several):
    rows = np.array([[0, 1, 2], [2, 1, 0]])
    one = np.zeros((2, 1), int)
    shape = {"images": one, "captions": one} | {several: rows}
    items = EncodedItems(None, None, **shape, indices=np.arange(2), clusters=np.arange(2))
    picked = items.select_candidates(np.array([[0, 2], [1, 2]]))
    np.testing.assert_array_equal(getattr(picked, several), [[0, 2], [1, 0]])
    other = "captions" if several == "images" else "images"
    np.testing.assert_array_equal(getattr(picked, other), one)


def test_some_keep_their_numbers(items):
    some = items.take([4, 1])
    np.testing.assert_array_equal(some.clusters, items.clusters[np.array([4, 1])])
    np.testing.assert_array_equal(some.indices, [4, 1])
    np.testing.assert_array_equal(some.images, items.images[np.array([4, 1])])
    np.testing.assert_array_equal(some.captions, items.captions[np.array([4, 1])])


def test_terms_are_those_of_the_matching_engine(model, items, terms):
    """The outputs of item 2 are those of `match_terms`, an item after the other."""
    seeds, steps = np.repeat(SEEDS, 2), np.tile(TIMESTEPS, 2)
    noise = noising.keyed_noise(seeds, np.array([2]), steps, model.latent_shape)[0]
    expected = match_terms(
        model, items.latents[items.images[2]], items.texts.states[items.captions[2]], noise, steps
    )
    for ours, one in zip(jax.tree.leaves(terms), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours[4:6], one, rtol=1e-5, atol=1e-5)


def test_candidates_share_their_noise_and_items_do_not(model, items):
    """All items have the same image and caption, so that only their noise can differ."""
    same = items._replace(images=0 * items.images, captions=0 * items.captions)
    error = np.asarray(item_outputs(model, same, TIMESTEPS, SEEDS).error)[:, 0]
    error = error.reshape(COUNT, 2, len(SEEDS), len(TIMESTEPS))
    np.testing.assert_allclose(error[:, 0], error[:, 1], rtol=0, atol=1e-5)
    assert np.diff(np.sort(error[:, 0].ravel())).min() > 1e-5


def test_noise_goes_with_the_items_number_and_the_seed(model, items, terms):
    """It does not depend on the position of the item among the others."""
    order = np.random.default_rng(0).permutation(COUNT)
    moved = item_outputs(model, items.take(order), TIMESTEPS, SEEDS[::-1])
    rows = (2 * order[:, None] + np.arange(2)).ravel()
    columns = [2, 3, 0, 1]
    np.testing.assert_allclose(moved.error, terms.error[rows][:, :, columns], rtol=1e-5, atol=1e-5)
    for layer, lse in moved.lse.items():
        np.testing.assert_allclose(lse, terms.lse[layer][rows][:, :, columns], rtol=1e-5, atol=1e-5)
