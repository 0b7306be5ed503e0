"""A pair's outputs do not depend on what else is in the batch, nor on the rows per call."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import dsd_jax
from dsd_jax.config.score_spec import METHODS
from dsd_jax.diffusion.pipeline import without_pooled
from dsd_jax.errors import UserError
from dsd_jax.matching.batching import Pairs, match_terms, pair_terms
from dsd_jax.matching.forward import OutputSpec, cross_attention_layers
from tests.random_model import random_model

TOLERANCE = 1e-5
CAPTIONS = ["a cat", "a dog above a tree", "a red apple", "a small fish", "a house"]
TIMESTEPS = [60, 400, 900]


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def inputs(model):
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(3, *model.latent_shape)).astype(np.float32)
    noise = rng.normal(size=(len(TIMESTEPS), *model.latent_shape)).astype(np.float32)
    return latents, model.encode_texts(CAPTIONS), noise


@pytest.fixture(scope="module")
def whole(model, inputs):
    """The terms of all pairs in one call of the UNet."""
    latents, states, noise = inputs
    return match_terms(model, latents, states, noise, TIMESTEPS)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    return [rng.integers(0, 256, (8, 8, 3), np.uint8) for _ in range(3)]


def assert_same(ours, expected):
    """Assert that two pytrees have the same shapes and equal arrays up to rounding."""
    assert jax.tree.structure(ours) == jax.tree.structure(expected)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=TOLERANCE)


def part(terms, pictures, captions, times=slice(None)):
    """Return the outputs of some of the pairs."""
    return terms._replace(
        lse={layer: x[pictures, captions, times] for layer, x in terms.lse.items()},
        lse_uncond={layer: x[pictures, times] for layer, x in terms.lse_uncond.items()},
        error=terms.error[pictures, captions, times],
        error_uncond=terms.error_uncond[pictures, times],
    )


def test_shapes(model, whole):
    layers = cross_attention_layers(model.unet)
    assert len(layers) == 4
    assert list(whole.lse) == list(whole.lse_uncond) == list(layers)
    assert {x.shape for x in whole.lse.values()} == {(3, 5, 3, 2)}
    assert {x.shape for x in whole.lse_uncond.values()} == {(3, 3, 2)}
    assert whole.error.shape == (3, 5, 3) and whole.error_uncond.shape == (3, 3)
    assert {x.dtype for x in jax.tree.leaves(whole)} == {jnp.dtype(jnp.float32)}


def test_pairs_differ(whole):
    """The outputs of different pairs differ; otherwise the other tests would prove little."""
    for x in [*whole.lse.values(), whole.error]:
        for axis in range(3):
            assert np.abs(np.diff(x, axis=axis)).max() > 100 * TOLERANCE


# 2: one row a call; 5: captions in two blocks, the second filled up; 7: two timesteps a call, the
# second filled up; 40: two pictures a call, the second filled up.
@pytest.mark.parametrize("chunk", [2, 5, 12, 40])
def test_chunk_changes_nothing(model, inputs, whole, chunk):
    latents, states, noise = inputs
    assert_same(match_terms(model, latents, states, noise, TIMESTEPS, chunk=chunk), whole)


def test_single_calls_are_rows_of_the_whole(model, inputs, whole):
    latents, states, noise = inputs
    for i, j in ((0, 0), (1, 4), (2, 2)):
        single = match_terms(
            model, latents[i : i + 1], states[j : j + 1], noise, TIMESTEPS, chunk=2
        )
        assert_same(single, part(whole, slice(i, i + 1), slice(j, j + 1)))
    for t, timestep in enumerate(TIMESTEPS):
        single = match_terms(model, latents[:1], states[:1], noise[t : t + 1], [timestep], chunk=2)
        assert_same(single, part(whole, slice(1), slice(1), slice(t, t + 1)))


def test_order_and_company_do_not_matter(model, inputs, whole):
    latents, states, noise = inputs
    pictures, captions = np.array([2, 0, 2, 1, 0]), np.array([3, 3, 0])
    terms = match_terms(model, latents[pictures], states[captions], noise, TIMESTEPS)
    for row, i in enumerate(pictures):
        expected = part(whole, slice(i, i + 1), captions)
        assert_same(part(terms, slice(row, row + 1), slice(None)), expected)


def test_strings_and_states_are_the_same_captions(model, inputs, whole):
    latents, _, noise = inputs
    assert_same(match_terms(model, latents, CAPTIONS, noise, TIMESTEPS), whole)


def test_latents_and_noise_may_differ_with_the_timestep(model, inputs, whole):
    latents, states, noise = inputs
    steps = len(TIMESTEPS)
    repeated = np.repeat(latents[:, None], steps, axis=1)
    noises = np.repeat(noise[None], len(latents), axis=0)
    assert_same(match_terms(model, repeated, states, noises, TIMESTEPS), whole)
    # Rows of their own: picture 0's at the first timestep, picture 1's at the others.
    mixed = np.stack([latents[0], *[latents[1]] * (steps - 1)])[None]
    terms = match_terms(model, mixed, states, noise, TIMESTEPS)
    first, others = (part(whole, slice(i, i + 1), slice(None)) for i in (0, 1))
    for ours, one, other in zip(*map(jax.tree.leaves, (terms, first, others)), strict=True):
        axis = ours.shape.index(steps)
        ours, one, other = (np.moveaxis(np.asarray(x), axis, 0) for x in (ours, one, other))
        np.testing.assert_allclose(ours[0], one[0], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(ours[1:], other[1:], rtol=0, atol=TOLERANCE)


def test_items_with_captions_of_their_own(model, inputs, whole):
    latents, states, noise = inputs
    captions = np.array([[4, 0], [1, 1], [2, 3]])
    images, timesteps = np.arange(3)[:, None], np.array(TIMESTEPS, np.int32)
    pairs = Pairs(latents, images, without_pooled(states), captions, noise[None], timesteps)
    terms = pair_terms(model, pairs, chunk=9)
    for i, columns in enumerate(captions):
        row = slice(i, i + 1)
        assert_same(part(terms, row, slice(None)), part(whole, row, columns))


def test_wanted_terms_alone(model, inputs, whole):
    latents, states, noise = inputs
    layers = cross_attention_layers(model.unet)
    wanted = OutputSpec((layers[2], layers[0]), error=False, uncond=False)
    terms = match_terms(model, latents, states, noise, TIMESTEPS, outputs=wanted)
    assert set(terms.lse) == {layers[0], layers[2]}
    assert terms.lse_uncond == {} and terms.error is None and terms.error_uncond is None
    for layer in wanted.layers:
        np.testing.assert_allclose(terms.lse[layer], whole.lse[layer], rtol=0, atol=TOLERANCE)
    errors = match_terms(model, latents, states, noise, TIMESTEPS, outputs=OutputSpec(()))
    assert errors.lse == {} and errors.lse_uncond == {}
    assert_same((errors.error, errors.error_uncond), (whole.error, whole.error_uncond))


@pytest.mark.parametrize("method", METHODS)
def test_scores_do_not_depend_on_company_or_chunk(model, pictures, method):
    score = partial(dsd_jax.match_scores, model, method=method, timesteps=3, seed=5)
    captions = CAPTIONS[:3]
    scores = score(pictures, captions)
    assert scores.shape == (3, 3) and scores.dtype == np.float32
    assert np.ptp(scores, axis=0).min() > 1e-3 and np.ptp(scores, axis=1).min() > 1e-3
    # Squared norms of 64 numbers are near 64, of which float32 has seven digits.
    tolerance = TOLERANCE * (10 if method in ("noise", "itm") else 1)
    for i, j in np.ndindex(3, 3):
        alone = score(pictures[i : i + 1], captions[j : j + 1], chunk=2)
        np.testing.assert_allclose(alone, scores[i : i + 1, j : j + 1], rtol=0, atol=tolerance)
    order = [2, 0, 2]
    permuted = score([pictures[i] for i in order], [captions[j] for j in order])
    np.testing.assert_allclose(permuted, scores[np.ix_(order, order)], rtol=0, atol=tolerance)


def test_mistakes_are_named(model, inputs):
    latents, states, noise = inputs
    call = partial(match_terms, model)
    with pytest.raises(UserError, match=r"latents has shape \(3, 4, 4, 3\).*\(.., h, w, 4\)"):
        call(latents[..., :3], states, noise, TIMESTEPS)
    with pytest.raises(UserError, match="noise has 3 rows but there are 2 timesteps"):
        call(latents, states, noise, TIMESTEPS[:2])
    with pytest.raises(UserError, match="latents has 2 timesteps along axis 1 but there are 3"):
        call(np.stack([latents, latents], axis=1), states, noise, TIMESTEPS)
    with pytest.raises(UserError, match="numbers from 0 to 999"):
        call(latents, states, noise, [0, 5, 1000])
    with pytest.raises(UserError, match="noise is of 2 images but there are 3 latents"):
        call(latents, states, np.stack([noise, noise]), TIMESTEPS)
