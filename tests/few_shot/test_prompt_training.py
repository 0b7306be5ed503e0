"""Prompt training: the loss falls, it stops early, it resumes, useless prompts are not kept."""

import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import Preempted
from dsd_jax.few_shot import batches, prompt_training, train_step
from dsd_jax.few_shot.support_set import cache_frozen_outputs, item_scores, zero_shot_temperature
from dsd_jax.matching import score_functions
from dsd_jax.matching.forward import Terms
from dsd_jax.prompts.prompt_files import read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import attention_shapes
from dsd_jax.training import losses
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.early_stopping import split
from dsd_jax.training.few_shot_fit import adamw
from dsd_jax.training.loop import LoopOptions
from tests.few_shots import (
    COUNT,
    LORA,
    NOISES,
    TIMESTEPS,
    few_model,
    recipe,
    telling_items,
)

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SEED = 1
LEARN, HELD_OUT = split(range(COUNT), LORA["held_out"], SEED)


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def items(model):
    return telling_items(model)


@pytest.fixture(scope="module")
def seen(model, items):
    return cache_frozen_outputs(model, items, TIMESTEPS, 0, noises=NOISES)


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    return tmp_path_factory.mktemp("learning") / "metrics.jsonl"


@pytest.fixture(scope="module")
def learned(model, seen, log):
    before = jax.tree.map(np.array, model.params)
    found = prompt_training.train_prompts(
        model, seen, recipe(model), SEED, options=LoopOptions("learning", log=log)
    )
    jax.tree.map(np.testing.assert_array_equal, model.params, before)  # frozen, to the bit
    return found


@pytest.fixture(scope="module")
def contradicted(model, items):
    """The same items, but with the held-out ones' pictures exchanged: what is learned is wrong."""
    pictures = np.array(items.images)
    pictures[HELD_OUT] = pictures[HELD_OUT, ::-1]
    items = items._replace(images=pictures)
    return cache_frozen_outputs(model, items, TIMESTEPS, 0, noises=NOISES)


def step_of(model, settings):
    net = prompt_training.ForwardConfig.of(
        model, prompt_training.outputs_of_losses(model.unet, settings)
    )
    return train_step.TrainStepConfig(net, settings, model.mesh)


def inputs_of(model, prompts, batch, temperatures=None):
    loss_params = train_step.LossParams(temperatures or {})
    return train_step.TrainInputs(prompts, model.params["unet"], loss_params, batch)


def terms_of(model, settings, tree, batch):
    forward = step_of(model, settings).forward
    return train_step.batch_outputs(forward, inputs_of(model, tree, batch))


def margins(model, seen, tree, name):
    """(noises, COUNT) score of the matching picture less that of the other."""
    found = []
    settings = recipe(model)
    for noise in range(len(seen.seeds)):
        for rows in np.arange(COUNT).reshape(-1, 4):
            batch = batches.make_batch(model.mesh, seen, rows, noise)
            scores = item_scores(terms_of(model, settings, tree, batch), 4, name, settings)
            found.append(scores[:, 0] - scores[:, 1])
    return np.concatenate(found)


def assert_close(found, expected, tolerance):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def assert_same(found, expected):
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_held_out_loss_falls_and_its_best_is_kept(learned):
    assert list(learned.checks) == [0, 2, 4, 6]
    assert learned.checks[learned.kept] == min(learned.checks.values())
    assert learned.checks[learned.kept] < 0.8 * learned.checks[0]


def test_decisions_on_the_shots_improve(model, seen, learned):
    """Counted in units of what the frozen model's scores differ by; of the sum of the losses."""
    gains = []
    for name in LORA["methods"]:
        before, after = (margins(model, seen, tree, name) for tree in ({}, learned.prompts))
        gains.append(float((after.mean() - before.mean()) / before.std()))
    assert sum(gains) > 0.2, gains


def test_a_step_lowers_the_loss_of_its_batch(model, seen):
    settings = recipe(model)
    tree = prompt_training.init_prompts(model.unet, settings, SEED)
    opt_state = adamw(settings).init(tree)
    batch = batches.make_batch(model.mesh, seen, LEARN[:4], 0)
    temperatures = {name: zero_shot_temperature(seen, name, settings) for name in settings.methods}
    loss_params = train_step.LossParams(temperatures)
    update, values = train_step.update_function(step_of(model, settings)), []
    for _ in range(5):
        tree, opt_state, value = update(tree, opt_state, model.params["unet"], loss_params, batch)
        values.append(float(value))
    assert values[-1] < values[1] < values[0]


def test_loss_is_what_the_recipe_says(model, seen):
    """Cross-entropy over both candidates at the temperatures, the mean of the methods."""
    settings = recipe(model)
    terms = seen.for_noise(1)
    temperatures = {"attention": 0.5, "relative": 2.0}
    expected = 0.0
    for name in settings.methods:
        scores = (
            score_functions.score(terms, name, settings.layers).reshape(-1, 2) / temperatures[name]
        )
        expected += losses.cross_entropy(scores) / 2
    np.testing.assert_allclose(
        train_step.item_losses(terms, COUNT, settings, train_step.LossParams(temperatures)),
        expected,
        rtol=1e-6,
    )
    settings, expected = recipe(model, loss="hinge", margin=0.7, methods=("relative",)), []
    for first, second in (
        score_functions.score(terms, "relative", settings.layers).reshape(-1, 2) / 2
    ):
        expected.append(max(0.0, second - first + 0.7))
    found = train_step.item_losses(terms, COUNT, settings, train_step.LossParams(temperatures))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_denoising_loss_is_of_the_matching_images():
    error = jnp.array([[[2.0, 4.0]], [[9.0, 9.0]], [[1.0, 3.0]], [[9.0, 9.0]]])
    uncond = jnp.array([[4.0, 4.0], [7.0, 7.0], [2.0, 6.0], [7.0, 7.0]])
    expected = [np.mean([0.5**2, 1.0]), 0.5**2]
    found = train_step.denoising_losses(Terms({}, {}, error, uncond), 2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_only_lora_is_learned_and_all_of_it(model, learned):
    tree = learned.prompts
    assert set(tree) == {"lora"} and set(tree["lora"]) == set(attention_shapes(model.unet))
    start = prompt_training.init_prompts(model.unet, recipe(model), SEED)
    assert jax.tree.structure(tree) == jax.tree.structure(start)
    for one, other in zip(*map(jax.tree.leaves, (tree, start)), strict=True):
        assert np.abs(one - other).max() > 1e-4


def test_log(learned, log):
    (line,) = [json.loads(line) for line in log.read_text().splitlines()]
    assert line["phase"] == "learning" and line["step"] == LORA["steps"] and line["loss"] > 0


def test_nothing_is_kept_that_held_out_shots_contradict(model, contradicted):
    found = prompt_training.train_prompts(model, contradicted, recipe(model), SEED)
    assert found.prompts == {} and found.kept == 0
    assert list(found.checks) == [0, 2, 4]  # two looks without improvement
    assert found.checks[4] > found.checks[0]


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_stopped_and_resumed_is_never_stopped(model, seen, learned, tmp_path, monkeypatch, stop_at):
    asked = []

    def batch_with_sigterm(sampler, step, original=batches.BatchSampler.batch):
        asked.append(step)
        if step == stop_at and len(asked) == stop_at + 1:
            signal.raise_signal(signal.SIGTERM)
        return original(sampler, step)

    monkeypatch.setattr(batches.BatchSampler, "batch", batch_with_sigterm)

    def run():
        with Checkpoints(tmp_path, {}) as checkpoints:
            return prompt_training.train_prompts(
                model, seen, recipe(model), SEED, options=LoopOptions("learning", checkpoints)
            )

    with pytest.raises(Preempted, match=f"stopped at step {stop_at}"):
        run()
    found = run()
    assert asked == [*range(stop_at + 1), *range(stop_at, LORA["steps"])]
    assert_same(found.prompts, learned.prompts)
    assert (found.checks, found.kept) == (learned.checks, learned.kept)


def test_an_early_end_is_final(model, contradicted, tmp_path, monkeypatch):
    """Started again after the last step but before the prompts were written."""
    every = []
    for _ in range(2):
        with Checkpoints(tmp_path, {}) as checkpoints:
            every.append(
                prompt_training.train_prompts(
                    model,
                    contradicted,
                    recipe(model),
                    SEED,
                    options=LoopOptions("learning", checkpoints),
                )
            )
    assert every[0].checks == every[1].checks and every[0].kept == every[1].kept == 0
    assert every[0].prompts == every[1].prompts == {}


class Caught(Exception):
    """Raised in place of training, with the function that makes a step's batch."""


def test_batches(model, seen, monkeypatch):
    """Held-out items never among them; the same for the same step; every noise comes up."""
    drawn = []

    def make_batch(mesh, support, chosen, noise, original=batches.make_batch, **options):
        drawn.append((sorted(chosen.tolist()), noise))
        return original(mesh, support, chosen, noise, **options)

    def fit_few_shot(task, recipe, options):
        raise Caught(task.batch)

    monkeypatch.setattr(batches, "make_batch", make_batch)
    monkeypatch.setattr(prompt_training, "fit_few_shot", fit_few_shot)
    with pytest.raises(Caught) as caught:
        prompt_training.train_prompts(model, seen, recipe(model), SEED)
    (batch,) = caught.value.args
    for step in [*range(30), *range(30)]:
        batch(step)
    assert drawn[:30] == drawn[30:]
    assert {row for rows, _ in drawn for row in rows} == set(LEARN)
    assert {noise for _, noise in drawn} == {0, 1}
    assert all(len(rows) == LORA["batch"] for rows, _ in drawn)
    counts = np.bincount([row for rows, _ in drawn[:30] for row in rows])[LEARN]
    assert np.ptp(counts) <= 1  # all of them before any comes again


def test_a_batch_larger_than_what_there_is(model, seen):
    batch = batches.BatchSampler(model.mesh, seen, LEARN[:2], recipe(model), SEED).batch(0)
    assert sorted(batch.items.indices.tolist()) == sorted([*LEARN[:2], *LEARN[:2]])
    np.testing.assert_allclose(batch.items.loss_weight, 1 / 4)


def test_a_batch_is_the_frozen_models_terms_and_noise(model, seen):
    """With no prompts, the terms of a batch are those of the look before training."""
    settings = recipe(model)
    rows = np.array([7, 2, 5, 3])
    batch = batches.make_batch(model.mesh, seen, rows, 1)
    terms = terms_of(model, settings, {}, batch)
    expected = seen.take(rows).for_noise(1)
    np.testing.assert_allclose(terms.error, expected.error, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(terms.error_uncond, expected.error_uncond)
    for layer in settings.layers:
        np.testing.assert_allclose(terms.lse[layer], expected.lse[layer], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("kinds", "rate", "seed"), [(("tokens",), 1.0, 2), (("lora", "weights"), 0.05, 3)]
)
def test_other_kinds(model, seen, kinds, rate, seed, tmp_path):
    settings = recipe(
        model, kinds=kinds, methods=("relative",), denoise=0.0, steps=2, learning_rate=rate
    )
    found = prompt_training.train_prompts(model, seen, settings, seed)
    assert found.kept == 2 and set(found.prompts) == set(kinds)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(found.prompts))
    write_prompts(tmp_path / "prompts", found.prompts, {})
    assert_same(read_prompts(tmp_path / "prompts", model.unet), found.prompts)


@pytest.mark.parametrize("kinds", [("lora",), ("weights", "lora"), ("weights",)])
def test_nothing_is_learned_where_no_gain_can_be_told(model, seen, kinds):
    """Eight items hold out four; sixteen of four clusters hold out two of these."""
    clusters = np.arange(COUNT) % 4
    related = seen._replace(items=seen.items._replace(clusters=clusters))
    few = [related] if kinds == ("weights",) else [related, seen.take(np.arange(8))]
    for some in few:
        with pytest.warns(UserWarning, match="so nothing is learned from them"):
            found = prompt_training.train_prompts(model, some, recipe(model, kinds=kinds), SEED)
        assert (found.prompts, found.checks, found.kept) == ({}, {}, 0)


def test_weights_alone_take_no_steps(model, seen):
    settings = recipe(model, kinds=("weights",), methods=("attention",))
    found = prompt_training.train_prompts(model, seen, settings, SEED)
    assert set(found.prompts) == {"weights"} and set(found.prompts["weights"]) == {"attention"}
    assert (found.checks, found.kept) == ({}, 0)
