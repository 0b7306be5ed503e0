"""Evaluation: zero-shot and few-shot rows are of the same items under the same noise."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.splits import Split
from dsd_jax.benchmarks.table_rows import EvalPlan, LearnedPrompts, RowKey
from dsd_jax.clip.fine_tuning import TunedClip
from dsd_jax.config.score_spec import parse_all
from dsd_jax.data.synthetic import triples
from dsd_jax.experiment import evaluation
from dsd_jax.experiment.decision_choice import SHOWN
from dsd_jax.experiment.score_cache import ScoreCache, scores_identity
from dsd_jax.matching import score_functions
from dsd_jax.prompts.prompt_params import init_lora
from dsd_jax.statistics import metrics
from tests.few_shots import COUNT, examples, few_model

pytestmark = pytest.mark.usefixtures("quickly_compiled")

METHODS = ("attention", "noise", "itm", "relative", "dsd")
NO_CACHE = ScoreCache(None, "")


@pytest.fixture(scope="module")
def encoders():
    return Encoders(few_model())


@pytest.fixture(scope="module")
def split():
    return Split("unseen-artist/test", examples(), list(range(COUNT)))


@pytest.fixture(scope="module")
def learned(encoders):
    """Empty prompts, a LoRA as if trained, and score weights of one method."""
    rng = np.random.default_rng(1)
    lora = init_lora(encoders.model.unet, jax.random.key(0), rank=2)
    lora = jax.tree.map(lambda x: jnp.asarray(0.5 * rng.normal(size=x.shape)), lora)
    weights = {"noise": {"timesteps": jnp.array([3.0, -3.0])}}
    return {
        "lora-8": LearnedPrompts(METHODS, [{}, {"lora": lora}], kinds=("lora",)),
        "weights-8": LearnedPrompts(("noise",), [{"weights": weights}] * 2, kinds=("weights",)),
    }


@pytest.fixture(scope="module")
def plan(encoders, learned):
    layers = score_functions.chosen_layers(encoders.model.unet)
    specs = parse_all([*METHODS, "dsd/compat"], 2)
    return EvalPlan(specs, layers, 2, 0, learned)


@pytest.fixture(scope="module")
def scores(encoders, split, plan):
    return evaluation.score_split(encoders, split, plan, NO_CACHE)


@pytest.fixture(scope="module")
def table(split, plan, scores):
    return evaluation.summarize_split(split, scores, plan, {})


def test_everything_asked_is_there_once(scores):
    expected = {
        *((name, "", 0) for name in (*METHODS, "dsd/compat")),
        *((name, "lora-8", seed) for name in METHODS for seed in (0, 1)),
        *(("noise", "weights-8", seed) for seed in (0, 1)),
    }
    assert set(scores) == expected
    assert all(values.shape == (COUNT, 2, 1) for values in scores.values())


def test_nothing_kept_is_zero_shot_to_the_bit(scores):
    for name in METHODS:
        np.testing.assert_array_equal(scores[name, "lora-8", 0], scores[name, "", 0])


def test_prompts_change_scores(scores):
    for name in METHODS:
        assert (scores[name, "lora-8", 1] != scores[name, "", 0]).all()
    weighted = [scores["noise", "weights-8", seed] for seed in (0, 1)]
    np.testing.assert_array_equal(*weighted)
    assert (weighted[0] != scores["noise", "", 0]).all()


def test_untrained_lora_scores_as_the_frozen_model(encoders, split, plan, scores):
    """A LoRA that changes nothing takes the path of learned prompts: the scores are the same."""
    untrained = {"lora": init_lora(encoders.model.unet, jax.random.key(0), rank=2)}
    again = evaluation.score_split(
        encoders,
        split,
        plan._replace(learned={"lora-8": LearnedPrompts(METHODS, [untrained])}),
        NO_CACHE,
    )
    for name in METHODS:
        few, zero = again[name, "lora-8", 0], again[name, "", 0]
        np.testing.assert_allclose(few, zero, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(zero, scores[name, "", 0], rtol=0, atol=1e-5)


def test_pieces_of_items_change_nothing(encoders, split, plan, scores, monkeypatch):
    """Ten items are scored as 3, 3, 3 and 1; the last piece is padded."""
    monkeypatch.setattr(evaluation, "SCORED_TOGETHER", 3 * 2 * 2)
    again = evaluation.score_split(encoders, split, plan._replace(learned={}), NO_CACHE)
    for key, values in again.items():
        np.testing.assert_allclose(values, scores[key], rtol=0, atol=1e-4, err_msg=str(key))


def test_an_item_has_its_noise_whoever_else_is_scored(encoders, split, plan, scores):
    some = split._replace(indices=[7, 2])
    again = evaluation.score_split(encoders, some, plan._replace(learned={}), NO_CACHE)
    for name in METHODS:
        expected = scores[name, "", 0][[7, 2]]
        np.testing.assert_allclose(again[name, "", 0], expected, rtol=0, atol=1e-4)


def test_authors_averaging(encoders, split, plan, scores):
    """Ten items of five kinds are five batches of two, each of which has one attention score."""
    bias = scores["dsd", "", 0] - scores["attention", "", 0]
    attention = scores["dsd/compat", "", 0] - bias
    batches = np.array([number for _, number in metrics.compat_batches(split.kinds)])
    assert not batches.any()
    np.testing.assert_allclose(attention[:5], attention[5:10], rtol=0, atol=1e-4)
    assert np.abs(np.diff(attention[:5, 0, 0])).min() > 1e-4


def test_scores_are_kept_and_found_again(encoders, split, plan, scores, tmp_path, monkeypatch):
    identity = scores_identity(encoders.model, plan, {})
    cache = ScoreCache(tmp_path / "scores", identity)
    first = evaluation.score_split(encoders, split, plan, cache)
    monkeypatch.setattr(evaluation, "candidate_scores", None)
    again = evaluation.score_split(encoders, split, plan, cache)
    for key, values in first.items():
        np.testing.assert_array_equal(again[key], values)
    (file,) = (tmp_path / "scores").iterdir()
    damaged = bytearray(file.read_bytes())
    damaged[-900] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(TypeError, match="'NoneType' object is not callable"):
        evaluation.score_split(encoders, split, plan, cache)
    cache.delete()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "change",
    [{"seed": 1}, {"timesteps": 3}, {"layers": ("other",)}, {"learned": {}}, {"specs": []}],
)
def test_other_runs_scores_are_not_taken(encoders, plan, change):
    before = scores_identity(encoders.model, plan, {})
    assert scores_identity(encoders.model, plan._replace(**change), {}) != before
    assert scores_identity(encoders.model, plan, {"folder": "x"}) != before
    assert scores_identity(encoders.model, plan, {}) == before


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("unet", {"norm_num_groups": 2}),
        ("vae", {"scaling_factor": 0.5}),
        ("text", {"activation": "gelu"}),
        ("schedule", {"prediction": "v_prediction"}),
    ],
)
def test_scores_of_another_config_are_not_taken(encoders, plan, part, change):
    """The same weights compute other scores under another config.json."""
    model = encoders.model
    other = replace(model, **{part: replace(getattr(model, part), **change)})
    before = scores_identity(encoders.model, plan, {})
    assert scores_identity(other, plan, {}) != before


def test_table(table, scores):
    kinds = [*triples.KINDS, "mean"]
    series = {(row["method"], row["prompts"]) for row in table.rows}
    assert series == {(key.method, key.prompts or None) for key in scores}
    assert len(table.rows) == len(series) * len(kinds)
    assert [row["kind"] for row in table.rows[:6]] == kinds
    assert {row["split"] for row in table.rows} == {"unseen-artist"}
    rows = {(row["method"], row["prompts"], row["kind"]): row for row in table.rows}
    outcome = metrics.outcomes(scores["itm", "", 0])["accuracy"]
    assert rows["itm", None, "mean"]["value"] == outcome.mean()
    # Two pictures at two timesteps, with the empty caption for `itm`.
    assert (table.passes["noise"], table.passes["itm"]) == (4, 8)


def test_the_authors_averaging_has_the_error_of_its_batches(table):
    """A kind is a single batch, so that its error is the largest possible."""
    rows = {(row["method"], row["kind"]): row for row in table.rows if row["prompts"] is None}
    assert rows["dsd/compat", "size"]["stderr"] == 0.5
    assert not [row for row in table.comparisons if "/compat" in row["method"]]


def test_rows_say_what_was_kept_and_what_was_refused(table):
    rows = {(row["method"], row["prompts"]): row for row in table.rows if row["kind"] == "mean"}
    assert (rows["dsd", "lora-8"]["kept"], rows["dsd", "lora-8"]["refused"]) == (
        *("lora 1/2", "lora 1/2"),
    )
    assert rows["noise", "weights-8"]["kept"] == "weights 2/2"
    assert not {"kept", "refused"} & set(rows["dsd", None])


def test_a_tuned_clip_has_a_verdict(split, plan, scores):
    clip = TunedClip(SimpleNamespace(), {0: 0.7, 5: 0.6}, 5)
    rows = {
        RowKey("clip"): scores["itm", "", 0],
        **{RowKey("clip", "tuned-8", seed): scores["noise", "", 0] for seed in (0, 1)},
    }
    tuned = {"tuned-8": [clip, clip._replace(kept=0)]}
    found = evaluation.summarize_split(split, rows, plan._replace(specs=[]), tuned).rows
    verdicts = {row["prompts"]: (row.get("kept"), row.get("refused")) for row in found}
    assert verdicts == {None: (None, None), "tuned-8": ("clip 1/2", "clip 1/2")}


def test_decisions(table):
    assert 0 < len(table.decisions) <= 2 * SHOWN
