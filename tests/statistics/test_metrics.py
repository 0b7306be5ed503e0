"""Metrics by the shape of the items; ties; the authors' averaging."""

import numpy as np
import pytest

from dsd_jax.statistics import metrics


def test_a_tie_counts_its_share():
    scores = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.0], [3.0, 3.0, 0.0], [3.0, 3.0, 3.0]])
    for shape in ((4, 3, 1), (4, 1, 3)):
        (found,) = metrics.outcomes(scores.reshape(shape)).values()
        np.testing.assert_allclose(found, [1, 0, 1 / 2, 1 / 3])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    with pytest.raises(FloatingPointError, match="1 scores are not finite"):
        metrics.outcomes(np.array([[[2.0, 1.0]], [[value, 2.0]]]))


def test_more_than_five_candidates_are_ranked():
    """The matching candidate is 1st, 5th, 6th, and tied with all others in place 5 of 10."""
    scores = -np.tile(np.arange(10.0), (4, 1))
    scores[1, 0], scores[2, 0] = -4.5, -5.5
    scores[3] = 0
    found = metrics.outcomes(scores[:, None])
    assert list(found) == ["R@1", "R@5"]
    np.testing.assert_allclose(found["R@1"], [1, 0, 0, 1 / 10])
    np.testing.assert_allclose(found["R@5"], [1, 1, 0, 5 / 10])


def test_text_image_and_group_score():
    """[picture, caption]; Winoground's own definitions, equation 1 to 3."""
    both = [[3, 1], [1, 3]]  # all right
    text = [[3, 2], [4, 5]]  # picture 1 takes both captions: only captions are told apart
    image = [[3, 4], [2, 5]]  # the other way round
    found = metrics.outcomes(np.array([both, text, image], float))
    assert {name: list(values) for name, values in found.items()} == {
        "text": [1, 1, 0],
        "image": [1, 0, 1],
        "group": [1, 0, 0],
    }


def test_chances_are_what_noise_gets():
    rng = np.random.default_rng(0)
    for shape in ((2, 1), (1, 5), (1, 10), (2, 2)):
        found = metrics.outcomes(rng.normal(size=(20_000, *shape)))
        for name, chance in metrics.chances(*shape).items():
            np.testing.assert_allclose(found[name].mean(), chance, atol=0.015, err_msg=name)


def test_items_of_other_shapes_have_no_metric():
    with pytest.raises(ValueError, match="3 images and 2 captions"):
        metrics.outcomes(np.zeros((1, 3, 2)))


def test_averaging_over_a_batch_makes_one_decision_of_sixteen():
    """12 of 16 are right by little, 4 wrong by much: their mean is wrong. The 17th is a batch."""
    margins = np.array([0.1] * 12 + [-9.0] * 4 + [0.1])
    attention = np.stack([margins, np.zeros(17)], axis=1)[:, :, None]
    kinds = ["subject"] * 17
    found = metrics.outcomes(metrics.compat(attention, None, kinds))["accuracy"]
    np.testing.assert_array_equal(found, [0] * 16 + [1])
    assert [metrics.compat_batches(kinds).count(("subject", i)) for i in (0, 1)] == [16, 1]


def test_batches_hold_one_kind_and_the_bias_is_each_items_own():
    attention = np.array([1.0, 10.0, 3.0, 30.0])[:, None, None]
    bias = np.arange(4.0)[:, None, None]
    found = metrics.compat(attention, bias, ["a", "b"] * 2)
    np.testing.assert_array_equal(found[:, 0, 0], [2 + 0, 20 + 1, 2 + 2, 20 + 3])
