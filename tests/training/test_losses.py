"""Losses against numbers worked out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.training import losses

# A wrong candidate within the margin, an item that is safely right, and one that is wrong.
SCORES = jnp.array([[1.0, 0.5, 0.95], [2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])


def test_hinge_is_the_authors_formula():
    found = losses.hinge(SCORES)
    assert found.shape == (3,) and found.dtype == jnp.float32
    np.testing.assert_allclose(found, [0.95 - 1 + 0.1, 0, 3 - 0 + 0.1], atol=1e-6)
    np.testing.assert_allclose(losses.hinge(SCORES, 2.0), [1.95, 1.0, 5.0], atol=1e-6)
    np.testing.assert_allclose(losses.hinge(SCORES[:, :2]), [0, 0, 3.1], atol=1e-6)


def test_hinge_moves_the_hardest_candidate_alone():
    gradients = jax.grad(lambda scores: losses.hinge(scores).sum())(SCORES)
    np.testing.assert_array_equal(gradients, [[-1, 0, 1], [0, 0, 0], [-1, 1, 0]])


def test_cross_entropy_is_that_of_a_softmax():
    odds = np.exp(np.asarray(SCORES, np.float64))
    chances = odds / odds.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses.cross_entropy(SCORES), -np.log(chances[:, 0]), rtol=1e-6)
    gradients = jax.grad(lambda scores: losses.cross_entropy(scores).sum())(SCORES)
    np.testing.assert_allclose(gradients, chances - [1, 0, 0], atol=1e-6)


def test_large_scores_overflow_nothing():
    np.testing.assert_allclose(losses.cross_entropy(1e4 * SCORES), [0, 0, 3e4], atol=1e-3)


def test_contrastive_is_the_mean_cross_entropy_of_rows_and_columns():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(size=(2, 5, 3))
    logits = 2.0 * images @ texts.T
    rows = -np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).diagonal()
    columns = -np.log(np.exp(logits) / np.exp(logits).sum(0, keepdims=True)).diagonal()
    found = [(logits.argmax(axis) == np.arange(5)).mean() for axis in (0, 1)]
    loss, part = losses.contrastive(jnp.asarray(images), jnp.asarray(texts), jnp.asarray(2.0))
    assert float(loss) == pytest.approx((rows.mean() + columns.mean()) / 2, rel=1e-5)
    assert float(part) == pytest.approx(np.mean(found))
