"""Rows of a report: what is right, and how sure one can be of a mean."""

import numpy as np
import pytest

from dsd_jax import results
from dsd_jax.results import Series, standard_error

KINDS = ["subject", "size"] * 2


def series(correct, method="dsd", prompts=None):
    return Series(method, prompts, "unseen-artist", np.array(correct, float))


def test_a_tie_counts_one_half():
    scores = np.array([[2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])
    np.testing.assert_array_equal(results.correct(scores), [1, 0, 0.5])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(value):
    with pytest.raises(FloatingPointError, match="1 scores are not finite"):
        results.correct(np.array([[2.0, 1.0], [value, 2.0]]))


def test_standard_error_of_items():
    """Of zero-shot accuracy: the textbook's, and what drawing items anew shows."""
    rng = np.random.default_rng(0)
    correct = (rng.random((1, 400)) < 0.8).astype(float)
    found, rate = standard_error(correct), correct.mean()
    np.testing.assert_allclose(found, np.sqrt(rate * (1 - rate) / 399), rtol=1e-12)
    draws = correct[0, rng.integers(400, size=(2000, 400))].mean(axis=1)
    np.testing.assert_allclose(found, draws.std(), rtol=0.1)


@pytest.mark.parametrize(("items", "seeds"), [(0.4, 0.0), (0.4, 0.1), (0.0, 0.1)])
def test_standard_error_of_items_and_seeds(items, seeds):
    """Means of many simulated experiments spread as one experiment's standard error says."""
    rng, shape = np.random.default_rng(0), (3000, 3, 40)
    values = items * rng.normal(size=(shape[0], 1, shape[2]))
    values = values + seeds * rng.normal(size=(*shape[:2], 1))
    told = np.mean([standard_error(one) ** 2 for one in values])
    np.testing.assert_allclose(told, items**2 / 40 + seeds**2 / 3, rtol=0.06)
    np.testing.assert_allclose(told, values.mean(axis=(1, 2)).var(), rtol=0.1)


def test_standard_error_is_not_too_small_for_right_and_wrong():
    """Chance in each single decision counts towards both parts: a little more than it should."""
    rng, shape = np.random.default_rng(0), (3000, 3, 40)
    rates = np.clip(rng.normal(0.7, 0.2, (shape[0], 1, 40)), 0, 1)
    correct = (rng.random(shape) < rates).astype(float)
    told = np.mean([standard_error(one) ** 2 for one in correct])
    true = correct.mean(axis=(1, 2)).var()
    assert true < told < 2 * true


def test_rows():
    found = results.rows(series([[1, 0, 1, 0.5], [1, 0, 0, 1]], prompts="lora-16"), KINDS)
    assert [(row["kind"], row["n"]) for row in found] == [("subject", 2), ("size", 2), ("mean", 4)]
    np.testing.assert_allclose([row["value"] for row in found], [3 / 4, 1.5 / 4, 4.5 / 8])
    for row in found:
        assert {**row, "kind": 0, "n": 0, "value": 0, "stderr": 0} == {
            "method": "dsd",
            "prompts": "lora-16",
            "split": "unseen-artist",
            "kind": 0,
            "metric": "accuracy",
            "value": 0,
            "stderr": 0,
            "n": 0,
            "chance": 0.5,
        }
    # Subject: items' means 1 and 0.5, seeds' means 1 and 0.5.
    np.testing.assert_allclose(found[0]["stderr"], np.sqrt(0.125 / 2 + 0.125 / 2))


def test_nothing_changed_is_zero_without_doubt():
    same = series([[1, 0, 1, 0]])
    for row in results.compare(same._replace(prompts="lora-16"), same, KINDS):
        assert (row["difference"], row["stderr"]) == (0, 0)


def test_comparisons_are_paired():
    """One of four items mended, whatever the others are: 1/4 +- 1/4."""
    learned, frozen = series([[1, 1, 1, 0]], prompts="lora-16"), series([[0, 1, 1, 0]], "noise")
    row = results.compare(learned, frozen, KINDS)[-1]
    assert row == {
        "method": "dsd",
        "prompts": "lora-16",
        "baseline_method": "noise",
        "baseline_prompts": None,
        "split": "unseen-artist",
        "kind": "mean",
        "difference": 0.25,
        "stderr": 0.25,
        "n": 4,
    }


def test_each_few_shot_series_is_compared_with_its_own_and_the_best():
    few = [series([[1, 1, 1, 0]], method, "lora-16") for method in ("dsd", "noise")]
    zero = [series([[0, 1, 0, 0]], "dsd"), series([[0, 1, 1, 0]], "noise")]
    found = [row for row in results.comparisons([*zero, *few], KINDS) if row["kind"] == "mean"]
    assert [(row["method"], row["baseline_method"], row["difference"]) for row in found] == [
        ("dsd", "dsd", 0.5),
        ("dsd", "noise", 0.25),
        ("noise", "noise", 0.25),
    ]
    assert {row["baseline_prompts"] for row in found} == {None}
