"""Learning from pairs in memory: what comes out serves scores, is saved, and says what it is."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest

import dsd_jax
from dsd_jax.errors import UserError
from dsd_jax.few_shot import learning
from dsd_jax.few_shot.live_curve import LiveCurve
from dsd_jax.prompts.learning_history import LearningHistory
from tests.few_shots import COUNT, LORA, few_model, pictures

pytestmark = pytest.mark.usefixtures("quickly_compiled")

CAPTIONS = [f"a cat and {i}" for i in range(COUNT)]
QUICK = {"timesteps": 2, "noises": 2, "steps": 4, "batch": 4, "rank": 2, "check_every": 2}


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def learned(model, images):
    return dsd_jax.learn(model, images[:, 0], CAPTIONS, wrong=list(images[:, 1]), **QUICK)


def test_what_was_learned_for_what(model, learned):
    about = learned.metadata
    assert (learned.method, learned.timesteps, about.shots) == ("relative", 2, COUNT)
    assert about.weights_digest == model.weights_digest and about.recipe_name == "adapted"
    assert list(learned.history.losses) == [0, 2, 4]
    assert set(learned.params) == ({"lora"} if about.kept_step else set())
    assert "held-out" in learned.verdict


def test_saved_prompts_give_the_same_scores(model, images, learned, tmp_path):
    learned.save(tmp_path)
    few = list(images[:2, 0])
    scores = dsd_jax.match_scores(model, few, CAPTIONS[:2], prompts=learned)
    for prompts in (tmp_path, str(tmp_path), dsd_jax.Prompts.load(tmp_path)):
        again = dsd_jax.match_scores(model, few, CAPTIONS[:2], prompts=prompts)
        np.testing.assert_array_equal(again, scores)
    tree = dsd_jax.match_scores(
        model, few, CAPTIONS[:2], method="relative", timesteps=2, prompts=learned.params
    )
    np.testing.assert_array_equal(tree, scores)


def test_learned_prompts_are_refused_for_what_they_are_not_for(model, images, learned):
    def refusal(other, **options):
        with pytest.raises(UserError) as error:
            dsd_jax.match_scores(other, images[:1, 0], CAPTIONS[:1], prompts=learned, **options)
        return str(error.value)

    assert refusal(model, method="noise").startswith(
        "the prompts were learned for relative, not for noise: leave the method out"
    )
    assert "the prompts were learned at 2 timesteps, not at 3" in refusal(model, timesteps=3)
    changed = dsd_jax.Prompts(
        learned.params, learned.metadata.model_copy(update={"weights_digest": "0" * 64})
    )
    with pytest.raises(UserError, match="the prompts were learned on other weights than those"):
        dsd_jax.match_scores(model, images[:1, 0], CAPTIONS[:1], prompts=changed)


def test_weights_learn_without_steps(model, images):
    found = dsd_jax.learn(
        model,
        images[:, 0],
        CAPTIONS,
        recipe="weights",
        method="attention",
        timesteps=2,
        noises=2,
        ridges=LORA["ridges"],
    )
    assert set(found.params["weights"]) == {"attention"} and not found.history.losses
    assert found.verdict.startswith("weights of attention")
    with pytest.raises(UserError, match="nothing was trained in steps"):
        found.plot()


def test_too_few_pairs_are_said_and_the_frozen_model_stays(model, images):
    with pytest.warns(UserWarning, match=r"learning: 6 shots hold out fewer than 5 .* 25 points"):
        found = dsd_jax.learn(model, images[:6, 0], CAPTIONS[:6], **QUICK)
    assert found.params == {} and "6 shots hold out fewer than 5" in found.verdict


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (
            {"recipe": "adaptd"},
            "recipe is 'adaptd', expected one of adapted, .*did you mean adapted",
        ),
        ({"method": "clip"}, "clip"),
        ({"steps": 0}, "steps is 0"),
        ({"learning_rat": 1.0}, "'learning_rat' is unknown"),
        ({"noises": 0}, "noises is 0; expected a whole number from 1"),
        ({"seed": -1}, "seed is -1"),
        ({"timesteps": 2000}, "timesteps is 2000"),
        ({"layers": "up"}, "layer 'up' is unknown"),
    ],
)
def test_mistakes_are_told_before_an_image_is_read(model, options, reason):
    with pytest.raises(UserError, match=reason):
        dsd_jax.learn(model, ["no.png"] * 12, CAPTIONS[:12], **options)


def test_a_curve_in_a_notebook_is_one_output_that_changes(monkeypatch):
    shown = []

    class Handle:
        def update(self, content):
            shown.append(("update", content))

    def display(content, display_id):
        shown.append(("display", content))
        return Handle()

    fake = SimpleNamespace(HTML=lambda text: text, display=display)
    monkeypatch.setitem(sys.modules, "IPython.display", fake)
    curve = LiveCurve(60, shown=True)
    for step, loss in ((0, 0.5), (20, 0.4)):
        curve.add(step, loss)
    curve.end(LearningHistory({0: 0.5, 20: 0.4}, 20, 60))
    assert [kind for kind, _ in shown] == ["display", "update", "update"]
    assert all(text.startswith("<img") for _, text in shown)
    quiet = LiveCurve(60, shown=False)
    quiet.add(0, 0.5)
    assert len(shown) == 3


def test_progress_says_the_verdict(model, images, capsys):
    dsd_jax.learn(model, images[:, 0], CAPTIONS, wrong=list(images[:, 1]), progress=True, **QUICK)
    assert "learning: " in capsys.readouterr().err
    assert learning.learn is dsd_jax.learn
