"""Rows of a report and paired comparisons; `test_standard_errors` tests the errors."""

import numpy as np

from dsd_jax.statistics import results
from dsd_jax.statistics.results import ItemGroups, Series

PARTS = ItemGroups(["subject", "size"] * 2, range(4))
CHANCES = {"accuracy": 0.5}


def series(correct, method="dsd", prompts=None):
    return Series(method, prompts, "unseen-artist", {"accuracy": np.array(correct, float)})


def test_rows():
    one = series([[1, 0, 1, 0.5], [1, 0, 0, 1]], prompts="lora-16")
    found = results.rows(one, PARTS, CHANCES)
    assert [(row["kind"], row["n"]) for row in found] == [("subject", 2), ("size", 2), ("mean", 4)]
    np.testing.assert_allclose([row["value"] for row in found], [3 / 4, 1.5 / 4, 4.5 / 8])
    for row in found:
        low, high = row.pop("interval")  # four items are too few for a standard error
        assert 0 <= low < row["value"] < high <= 1
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
    np.testing.assert_allclose(found[0]["stderr"], np.sqrt(0.125 / 2 + 0.125 / 2), rtol=0.05)


def test_one_kind_needs_no_row_of_its_own():
    found = results.rows(series([[1, 0]]), ItemGroups(["all"] * 2, range(2)), CHANCES)
    assert [(row["kind"], row["n"]) for row in found] == [("mean", 2)]


def test_every_metric_has_its_rows_and_chance():
    outcomes = {"text": np.ones((1, 4)), "group": np.zeros((1, 4))}
    one = Series("itm", None, "test", outcomes)
    found = results.rows(one, PARTS, {"text": 0.25, "group": 1 / 6})
    assert [(row["metric"], row["value"], row["chance"]) for row in found[::3]] == [
        ("text", 1, 0.25),
        ("group", 0, 1 / 6),
    ]


def test_nothing_changed_is_zero_without_doubt():
    same = series([[1, 0, 1, 0]])
    for row in results.compare(same._replace(prompts="lora-16"), same, PARTS):
        assert (row["difference"], row["stderr"]) == (0, 0)


def test_comparisons_are_paired():
    """One of four items becomes right, and the others stay as they are: 1/4 +- 1/4."""
    learned, frozen = series([[1, 1, 1, 0]], prompts="lora-16"), series([[0, 1, 1, 0]], "noise")
    row = results.compare(learned, frozen, PARTS)[-1]
    np.testing.assert_allclose(row.pop("stderr"), 0.25, rtol=0.05)
    low, high = row.pop("interval")
    assert low < 0 < 0.25 < high
    assert row == {
        "method": "dsd",
        "prompts": "lora-16",
        "baseline_method": "noise",
        "baseline_prompts": None,
        "split": "unseen-artist",
        "kind": "mean",
        "difference": 0.25,
        "n": 4,
    }


def test_draws_are_paired_seed_by_seed():
    """Both learn from the same draws: an effect of the draw on both is no difference."""
    draws = np.array([[1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 0]], float)
    better = draws + np.array([0, 0, 0, 1.0])
    learned, tuned = series(better, prompts="lora-16"), series(draws, "clip", "tuned-16")
    one, other = (
        results.compare(*pair, PARTS)[-1] for pair in ((learned, tuned), (tuned, learned))
    )
    assert one["difference"] == -other["difference"] == 0.25
    np.testing.assert_allclose(one["stderr"], 0.25, rtol=0.05)  # of the items alone
    assert one["stderr"] == other["stderr"]


def test_the_baselines_draws_count():
    """The draws of a fine-tuned baseline count in the error as those of the compared series."""
    frozen = series([[0.5] * 4])
    tuned = series([[0.2] * 4, [0.5] * 4, [0.8] * 4], "clip", "tuned-16")
    error = np.sqrt(0.09 / 3)
    for pair in ((tuned, frozen), (frozen, tuned)):
        np.testing.assert_allclose(results.compare(*pair, PARTS)[-1]["stderr"], error, rtol=1e-6)


def test_unequally_many_draws():
    learned = series([[1, 1, 1, 0], [1, 1, 0, 0], [0, 0, 0, 0]], prompts="lora-16")
    tuned = series([[1, 1, 0, 0], [1, 1, 0, 0]], "clip", "tuned-16")
    np.testing.assert_array_equal(results.paired(learned, tuned), [[0, 0, 1, 0], [0, 0, 0, 0]])


def test_one_cluster_of_differences():
    """A difference lies between -1 and 1, so the mean of one cluster can be off by 1."""
    same = ItemGroups(["subject"] * 4, ["same"] * 4)
    row = results.compare(series([[1] * 4], "noise"), series([[0] * 4]), same)[-1]
    assert (row["difference"], row["stderr"]) == (1.0, 1.0)


def test_each_series_is_compared_with_its_own_and_the_best():
    few = [series([[1, 1, 1, 0]], method, "lora-16") for method in ("dsd", "noise")]
    zero = [series([[0, 1, 0, 0]], "dsd"), series([[0, 1, 1, 0]], "noise")]
    found = [row for row in results.comparisons([*zero, *few], PARTS) if row["kind"] == "mean"]
    assert [
        (row["method"], row["prompts"], row["baseline_method"], row["difference"]) for row in found
    ] == [
        ("dsd", None, "noise", -0.25),
        ("dsd", "lora-16", "dsd", 0.5),
        ("dsd", "lora-16", "noise", 0.25),
        ("noise", "lora-16", "noise", 0.25),
    ]
    assert {row["baseline_prompts"] for row in found} == {None}
