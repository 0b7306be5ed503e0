"""Scores of an evaluation plan: stages that prune, timesteps in pieces, memory for outputs."""

import numpy as np
import pytest

from dsd_jax.benchmarks import score_jobs, table_rows
from dsd_jax.benchmarks.encoded_items import encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.benchmarks.table_rows import EvalPlan, LearnedPrompts, candidate_scores
from dsd_jax.config import score_spec
from dsd_jax.config.score_spec import parse, parse_all
from dsd_jax.data.examples import Examples
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import output_floats
from tests.few_shots import few_model, pictures

pytestmark = pytest.mark.usefixtures("quickly_compiled")

ITEMS, CAPTIONS = 3, 6


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def items(model):
    """Three items of one image and six captions."""
    images = pictures(ITEMS)
    captions = tuple(f"a {word} and a cat" for word in ["dog", "bird", "fish", "cow", "ant", "bee"])
    examples = Examples(
        [captions[i:] + captions[:i] for i in range(ITEMS)],
        [((i, 0),) for i in range(ITEMS)],
        ["all"] * ITEMS,
        range(ITEMS),
        lambda key, size: images[key],
    )
    return encode(Encoders(model), examples, range(ITEMS))


def scores_of(model, items, *labels):
    plan = EvalPlan(parse_all(labels, 4), score_functions.chosen_layers(model.unet), 4, 0, {})
    found = candidate_scores(model, items, plan)
    return [found[label, "", 0] for label in labels]


@pytest.fixture(scope="module")
def whole(model, items):
    return scores_of(model, items, "itm@4", "itm@20", "attention@20", "noise-l1@20", "itm@100")


@pytest.mark.parametrize("several", ["captions", "pictures"])
def test_pruning_keeps_the_best_and_scores_them_as_if_alone(model, items, whole, several):
    if several == "pictures":
        items = items._replace(captions=items.images, images=items.captions % 3)
    few, many = scores_of(model, items, "itm@4", "itm@20")
    (pruned,) = scores_of(model, items, "itm@4>3@20")
    assert pruned.shape == few.shape
    few, many, pruned = (x.reshape(ITEMS, -1) for x in (few, many, pruned))
    for i in range(ITEMS):
        order = np.argsort(-few[i], kind="stable")
        kept, dropped = order[:3], order[3:]
        np.testing.assert_allclose(pruned[i, kept], many[i, kept], rtol=0, atol=1e-3)
        assert pruned[i, dropped].max() < pruned[i, kept].min()
        assert list(np.argsort(-pruned[i, dropped], kind="stable")) == [0, 1, 2]


def test_pruning_in_several_rounds(model, items, whole):
    (pruned,) = scores_of(model, items, "itm@4>4@20>1@100")
    best = pruned[:, 0].argmax(axis=1)
    for i in range(ITEMS):
        left = np.argsort(-whole[0][i, 0], kind="stable")[:4]
        assert best[i] == left[whole[1][i, 0, left].argmax()]
        np.testing.assert_allclose(
            pruned[i, 0, best[i]], whole[4][i, 0, best[i]], rtol=0, atol=1e-3
        )


def test_pruning_to_more_than_there_are_is_none(model, items, whole):
    (pruned,) = scores_of(model, items, "itm@4>50@20")
    np.testing.assert_allclose(pruned, whole[1], rtol=0, atol=1e-3)


def test_pruning_computes_only_what_is_left(model, items, monkeypatch):
    rows = []
    original = score_jobs.item_outputs

    def counted(model, items, times, seeds, **rest):
        rows.append(items.captions.shape[1] * len(times))
        return original(model, items, times, seeds, **rest)

    monkeypatch.setattr(score_jobs, "item_outputs", counted)
    scores_of(model, items, "itm@4>2@20")
    new = len(parse("itm@4>2@20", 4).new_timesteps(1))
    assert rows == [CAPTIONS * 4, 2 * new]


def test_timesteps_in_pieces_change_nothing(model, items, whole, monkeypatch):
    monkeypatch.setattr(score_jobs, "FLOATS", ITEMS * CAPTIONS * 17)
    pieces = scores_of(model, items, "itm@20", "attention@20", "noise-l1@20")
    for one, expected in zip(pieces, whole[1:4], strict=True):
        np.testing.assert_allclose(one, expected, rtol=0, atol=1e-4)


def test_more_timesteps_hold_no_more_terms(model, items, monkeypatch):
    """Outputs are reduced to a number per method before the next piece of timesteps."""
    wanted = score_functions.required_outputs(
        model.unet, "dsd", score_functions.chosen_layers(model.unet)
    )
    monkeypatch.setattr(
        score_jobs, "FLOATS", 4 * ITEMS * output_floats(model.unet, wanted, CAPTIONS)
    )
    held = []
    original = score_jobs.item_outputs

    def weighed(*arguments, **options):
        terms = original(*arguments, **options)
        held.append(sum(x.nbytes for x in [*terms.lse.values(), terms.error]))
        return terms

    monkeypatch.setattr(score_jobs, "item_outputs", weighed)
    scores_of(model, items, "dsd@4")
    few = max(held)
    held.clear()
    scores_of(model, items, "dsd@200")
    assert len(held) > 40 and max(held) <= few


def test_methods_with_the_same_timesteps_share_passes(model, items, monkeypatch):
    calls = []
    original = score_jobs.item_outputs

    def recorded(model, items, times, seeds, **rest):
        calls.append(times.tolist())
        return original(model, items, times, seeds, **rest)

    monkeypatch.setattr(score_jobs, "item_outputs", recorded)
    specs = parse_all(["itm@4", "noise@20", "attention@4"], 4)
    candidate_scores(
        model, items, EvalPlan(specs, score_functions.chosen_layers(model.unet), 4, 0, {})
    )
    every = [time for call in calls for time in call]
    assert len(every) == len(set(every)) == 20


@pytest.mark.parametrize(
    ("name", "norm"),
    [
        ("noise-l1", lambda x: np.abs(x)),
        ("noise-huber", lambda x: np.where(np.abs(x) < 1, x * x / 2, np.abs(x) - 0.5)),
    ],
)
def test_other_norms(model, items, name, norm):
    """Scores are compared with norms of the prediction error itself."""
    import jax.numpy as jnp

    from dsd_jax.diffusion import noising
    from dsd_jax.models.unet import UNet2DCondition

    (found,) = scores_of(model, items, name + "@4")
    steps = score_spec.timesteps(4)
    noise = noising.keyed_noise(np.zeros(4, int), np.array([1]), steps, model.latent_shape)[0]
    latents = jnp.tile(items.latents[items.images[1]], (4, 1, 1, 1))
    noisy = model.schedule.add_noise(latents, noise, steps)
    states = items.texts.states[items.captions[1, 2]][None, None]
    unet = UNet2DCondition(model.unet)
    prediction, _ = unet.apply({"params": model.params["unet"]}, noisy, steps, states)
    difference = np.asarray(noise - model.schedule.epsilon(prediction, noisy, steps))
    np.testing.assert_allclose(found[1, 0, 2], -norm(difference).mean(), rtol=1e-4)


def test_dropped_candidates_stay_below_whatever_their_scale():
    scores = np.array([[5.0, 900.0, -1e6, 2.0]])
    found = table_rows._above_dropped(scores, np.array([[0, 3]]), np.array([[-1e5, 3.0]]))
    np.testing.assert_allclose(found[0, [0, 3]], [-1e5, 3])
    assert found[0, 0] > found[0, 1] > found[0, 2]


def test_what_held_out_shots_refused_is_said_by_kind_and_draw():
    weights = {"dsd": {"timesteps": np.zeros(4), "lse": {"mid": np.ones(2)}}}
    nothing = {"dsd": {"timesteps": np.zeros(4), "lse": {"mid": np.zeros(2)}}}
    draws = [{"weights": weights, "lora": {"mid": {}}}, {"weights": nothing}, {"weights": weights}]
    learned = LearnedPrompts(("dsd",), draws, kinds=("weights", "lora"))
    assert learned.refused("dsd") == "weights 1/3, lora 2/3"
    assert learned.refused("noise") == "weights 3/3, lora 2/3"
    assert LearnedPrompts(("dsd",), draws[:1], kinds=("weights", "lora")).refused("dsd") == ""
