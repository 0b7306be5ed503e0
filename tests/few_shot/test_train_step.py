"""A training step: parts, recomputation and left-out candidates change its cost, not its result."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.benchmarks.encoded_items import encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.data.examples import Examples
from dsd_jax.errors import UserError
from dsd_jax.few_shot import batches, prompt_training, train_step
from dsd_jax.few_shot.support_set import cache_frozen_outputs
from dsd_jax.matching.forward import ForwardConfig
from tests.few_shots import NOISES, TIMESTEPS, few_model, recipe

pytestmark = pytest.mark.usefixtures("quickly_compiled")

SEED, COUNT, CANDIDATES = 0, 4, 5
LOSS_PARAMS = train_step.LossParams({"attention": 0.1, "dsd": 1.0})


@pytest.fixture(scope="module")
def model():
    return few_model()


def shots_of(model, pictures, captions):
    rng = np.random.default_rng(1)
    images = rng.integers(0, 256, (COUNT, pictures, 8, 8, 3), np.uint8)
    texts = [tuple(f"a cat and {i} dogs and {j}" for j in range(captions)) for i in range(COUNT)]
    keys = [tuple((i, j) for j in range(pictures)) for i in range(COUNT)]
    names = ["all"] * COUNT
    examples = Examples(texts, keys, names, range(COUNT), lambda key, size: images[key])
    items = encode(Encoders(model), examples, range(COUNT))
    return cache_frozen_outputs(
        model, items._replace(latents=9 * items.latents), TIMESTEPS, SEED, noises=NOISES
    )


@pytest.fixture(scope="module", params=["pictures", "captions"])
def shots(model, request):
    """Four items with five candidates each."""
    sizes = {"pictures": (CANDIDATES, 1), "captions": (1, CANDIDATES)}
    return shots_of(model, *sizes[request.param])


def gradient(model, shots, fun=train_step.gradient, **changes):
    """Loss and gradient of all items as one step sees them, prompts already trained a little."""
    settings = recipe(model, methods=("attention", "dsd"), margin=0.7, **changes)
    net = ForwardConfig.of(
        model, prompt_training.outputs_of_losses(model.unet, settings), settings.remat
    )
    step = train_step.TrainStepConfig(net, settings, model.mesh)
    tree = prompt_training.init_prompts(model.unet, settings, SEED)
    tree = jax.tree.map(lambda x: x + 0.05 * jnp.cos(jnp.arange(x.size)).reshape(x.shape), tree)
    batch = batches.make_batch(model.mesh, shots, np.arange(COUNT), 1)
    inputs = train_step.TrainInputs(tree, model.params["unet"], LOSS_PARAMS, batch)
    return jax.jit(lambda inputs: fun(step, inputs))(inputs)


def assert_close(found, expected, tolerance=1e-5):
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        scale = max(1.0, np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


def all_candidates(step, inputs):
    return jax.value_and_grad(
        lambda prompts: train_step.batch_loss(step, inputs._replace(prompts=prompts))
    )(inputs.prompts)


def test_hinge_without_the_candidates_that_do_not_matter(model, shots):
    """Three of five: the matching one and, for each of two methods, the best of the others."""
    expected = gradient(model, shots, all_candidates, loss="hinge", denoise=0.5)
    assert_close(gradient(model, shots, loss="hinge", denoise=0.5), expected)
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected[1])) > 1e-3


def test_hinge_differentiates_few_candidates(model, shots):
    settings = recipe(model, methods=("dsd",), loss="hinge")
    net = ForwardConfig.of(model, prompt_training.outputs_of_losses(model.unet, settings))
    batch = batches.make_batch(model.mesh, shots, np.arange(COUNT), 1)
    inputs = train_step.TrainInputs({}, model.params["unet"], LOSS_PARAMS, batch)
    step = train_step.TrainStepConfig(net, settings, model.mesh)
    few = train_step.hardest_candidates(step, inputs).items
    assert few.latents.shape[1] * few.texts.states.shape[1] == 2
    np.testing.assert_array_equal(few.latents[:, 0], batch.items.latents[:, 0])
    other = recipe(model, methods=("dsd",), loss="cross_entropy")
    step = train_step.TrainStepConfig(net, other, model.mesh)
    same = train_step.hardest_candidates(step, inputs)
    assert same is batch


@pytest.mark.parametrize("remat", ["products", "blocks"])
def test_recomputation_changes_no_gradient(model, remat):
    shots = shots_of(model, 2, 1)
    assert_close(gradient(model, shots, remat=remat), gradient(model, shots))


def test_parts_of_a_batch_add_up(model):
    shots = shots_of(model, 2, 1)
    expected = gradient(model, shots)
    for parts in (2, 4):
        assert_close(
            gradient(model, shots, train_step.accumulated_gradient, accumulate=parts), expected
        )


def test_what_fills_a_batch_up_has_no_share(model):
    shots = shots_of(model, 2, 1)
    three = batches.make_batch(model.mesh, shots, np.arange(3), 0, multiple=2)
    assert three.items.loss_weight.tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0])
    settings = recipe(model, methods=("attention", "dsd"))
    net = ForwardConfig.of(model, prompt_training.outputs_of_losses(model.unet, settings))
    step, tree = (
        train_step.TrainStepConfig(net, settings, model.mesh),
        prompt_training.init_prompts(model.unet, settings, SEED),
    )
    run = jax.jit(
        lambda batch: train_step.gradient(
            step, train_step.TrainInputs(tree, model.params["unet"], LOSS_PARAMS, batch)
        )
    )
    assert_close(run(three), run(batches.make_batch(model.mesh, shots, np.arange(3), 0)))


def test_16_bit_weights_have_gradients_near_those_of_32(model):
    from dataclasses import replace

    half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), model.params)
    shots = shots_of(model, 2, 1)
    (value, low), (expected, exact) = (
        gradient(one, shots) for one in (replace(model, params=half), model)
    )
    assert value.dtype == jnp.float32 and abs(value - expected) < 0.1 * abs(expected)
    assert {leaf.dtype for leaf in jax.tree.leaves(low)} == {jnp.dtype(jnp.float32)}
    flat = [np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (low, exact)]
    assert np.dot(*flat) / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]) > 0.98


def test_items_with_several_of_both_are_refused(model):
    with pytest.raises(UserError, match="items have 2 images and 2 captions each; prompts"):
        shots_of(model, 2, 2)
