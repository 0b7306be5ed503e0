"""A benchmark's table: zero-shot and few-shot on the same items under the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax import evaluation, methods, results
from dsd_jax.benchmark import Split
from dsd_jax.data import emoji, triples
from dsd_jax.evaluation import Learned
from dsd_jax.prompts import init_lora
from tests.few_shots import COUNT, TIMESTEPS, few_model, pictures, random_items

pytestmark = pytest.mark.usefixtures("quickly_compiled")

METHODS = ("attention", "noise", "itm", "relative", "dsd")


class Source(emoji.Items):
    """Items whose pictures are in memory."""

    def images(self, numbers):
        return pictures()[list(numbers)]


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def split(model):
    kinds = [triples.KINDS[i % 5] for i in range(COUNT)]
    source = Source([f"caption {i}" for i in range(COUNT)], kinds, [])
    return Split("unseen-artist/test", source, random_items(model))


@pytest.fixture(scope="module")
def learned(model):
    """Nothing kept, LoRA as if trained, and weights of one method."""
    rng = np.random.default_rng(1)
    lora = init_lora(model.unet, jax.random.key(0), rank=2)
    lora = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape)), lora)
    weights = {"noise": {"timesteps": jnp.array([3.0, -3.0])}}
    return {
        "lora-8": Learned(METHODS, [{}, {"lora": lora}]),
        "weights-8": Learned(("noise",), [{"weights": weights}] * 2),
    }


@pytest.fixture(scope="module")
def layers(model):
    return methods.chosen_layers(model.unet)


@pytest.fixture(scope="module")
def series(model, split, layers, learned):
    return evaluation.split_series(model, split, METHODS, layers, TIMESTEPS, 0, learned)


def of(series, method, prompts):
    (found,) = [one for one in series[0] if (one.method, one.prompts) == (method, prompts)]
    return found


def test_every_series_is_there_once(series):
    expected = [
        *((name, None) for name in METHODS),
        *((name, "lora-8") for name in METHODS),
        ("noise", "weights-8"),
    ]
    assert [(one.method, one.prompts) for one in series[0]] == expected
    for one in series[0]:
        assert one.correct.shape == (1 if one.prompts is None else 2, COUNT)
        assert one.split == "unseen-artist"
    assert all(scores.shape == (COUNT, 2) for scores in series[1].values())


def test_nothing_kept_is_zero_shot_to_the_bit(series):
    for name in METHODS:
        np.testing.assert_array_equal(series[1][name, "lora-8"], series[1][name, None])
        zero, few = of(series, name, None), of(series, name, "lora-8")
        np.testing.assert_array_equal(few.correct[0], zero.correct[0])


def test_prompts_change_scores(series):
    learned = np.stack([of(series, name, "lora-8").correct[1] for name in METHODS])
    frozen = np.stack([of(series, name, None).correct[0] for name in METHODS])
    assert (learned != frozen).any()
    weighted = of(series, "noise", "weights-8")
    np.testing.assert_array_equal(weighted.correct[0], weighted.correct[1])
    assert (series[1]["noise", "weights-8"] != series[1]["noise", None]).all()


def test_untrained_lora_scores_as_the_frozen_model(model, split, layers, series):
    """Through the path that learned prompts take: same items, same noise, same empty caption."""
    untrained = {"lora": init_lora(model.unet, jax.random.key(0), rank=2)}
    _, scores = evaluation.split_series(
        model, split, METHODS, layers, TIMESTEPS, 0, {"lora-8": Learned(METHODS, [untrained])}
    )
    for name in METHODS:
        np.testing.assert_allclose(scores[name, "lora-8"], scores[name, None], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(scores[name, None], series[1][name, None], rtol=0, atol=1e-5)


def test_table(model, split, layers, learned, monkeypatch, series):
    monkeypatch.setattr(evaluation, "split_series", lambda *_: series)
    table = evaluation.evaluate(model, [split] * 2, METHODS, layers, TIMESTEPS, 0, learned)
    kinds = [*triples.KINDS, "mean"]
    assert len(table.rows) == 2 * len(series[0]) * len(kinds)
    assert [row["kind"] for row in table.rows[:6]] == kinds
    assert table.rows[:6] == results.rows(series[0][0], split.source.kinds)
    assert {row["prompts"] for row in table.comparisons} == {"lora-8", "weights-8"}
    assert 0 < len(table.decisions) <= 2 * 2 * evaluation.SHOWN


def test_pictured_decisions(split):
    scores = np.stack([np.arange(COUNT), np.full(COUNT, 2.5)], axis=1).astype(float)
    scores[0] = 1.0  # a tie is not right
    one = results.Series("dsd", "lora-8", "unseen-artist", results.correct(scores)[None])
    found = evaluation.pictured(split, one, scores)
    assert [decision.right for decision in found] == [False] * 3 + [True] * evaluation.SHOWN
    assert [decision.caption for decision in found[:4]] == [f"caption {i}" for i in (0, 1, 2, 3)]
    first = found[3]
    assert (first.positive_score, first.negative_score, first.kind) == (3.0, 2.5, "size")
    assert (first.method, first.prompts, first.split) == ("dsd", "lora-8", "unseen-artist")
    np.testing.assert_array_equal(first.positive, pictures()[3, 0])
    np.testing.assert_array_equal(first.negative, pictures()[3, 1])
