"""The denoiser's training: what each step sees depends on its number alone."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import load_sprites
from dsd_jax.diffusion.noising import Schedule
from dsd_jax.pretraining import denoiser_phase
from dsd_jax.pretraining.caption_reading_phase import init_reader
from dsd_jax.pretraining.denoiser_phase import DRAWS
from dsd_jax.pretraining.train_phase import adamw_with_cooldown
from tests.random_model import random_model


@pytest.fixture(scope="module")
def batch():
    """200 pictures of one and the same scene of two things, and their captions."""
    sprites, rng = load_sprites(), np.random.default_rng(0)
    pairs = scenes.allowed_pairs(len(sprites.concepts))
    scene = scenes.lay_out(rng, scenes.sample_plan(rng, pairs, [0], single=0))
    texts = []
    source = SimpleNamespace(
        batch=lambda step, count: (np.zeros((count, 8, 8, 4)), [scene] * count),
        concepts=sprites.concepts,
        seed=0,
    )

    def tokenize(captions):
        texts.extend(captions)
        return np.zeros((len(captions), 77), np.int32)

    return denoiser_phase.batch(source, tokenize, 200, 3), texts


def test_captions_are_drawn_anew_and_some_left_out(batch):
    _, texts = batch
    assert 8 <= texts.count("") <= 35
    assert len(set(texts)) > 2


def test_empty_captions_say_nothing_of_the_sides(batch):
    rows, texts = batch
    says = (rows.sides[..., 0] < len(load_sprites().concepts)).sum(axis=1)
    np.testing.assert_array_equal(says, [2 if text else 0 for text in texts])


def test_loss_is_of_the_schedules_target_and_a_little_reading():
    model, key = random_model(), jax.random.key(0)
    rng, pictures = np.random.default_rng(0), 2
    rows = denoiser_phase.Batch(
        rng.standard_normal((pictures, *model.latent_shape)).astype(np.float32),
        rng.integers(0, 900, (pictures, 77)).astype(np.int32),
        np.array([[[0, 0], [1, 2], [5, 1], [5, 1]], [[5, 1]] * 4], np.int32),
        np.full((pictures, DRAWS), 500, np.int32),
    )
    params = {
        "text": model.params["text"],
        "unet": jax.tree.map(jnp.zeros_like, model.params["unet"]),
        "reader": init_reader(key, model.text.hidden_size, 5),
    }
    noise = jax.random.normal(key, (pictures * DRAWS, *model.latent_shape))
    for prediction in ("epsilon", "v_prediction"):
        schedule = Schedule(prediction=prediction)
        loss = jax.jit(denoiser_phase.loss_function(model.unet, model.text, schedule))
        total, parts = loss(params, rows, key)
        target = schedule.target(
            np.repeat(rows.latents, DRAWS, axis=0), noise, rows.timesteps.reshape(-1)
        )
        np.testing.assert_allclose(parts["denoising"], np.square(target).mean(), rtol=1e-5)
        expected = parts["denoising"] + denoiser_phase.READING * parts["reading"]
        np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert parts["reading"] > 1


def test_timesteps_are_mostly_in_the_middle(batch):
    steps = batch[0].timesteps
    assert steps.shape == (200, DRAWS) and steps.dtype == np.int32
    assert steps.min() >= 0 and steps.max() < 1000
    low, high = denoiser_phase.MIDDLE
    inside = ((steps >= low) & (steps < high)).mean()
    expected = denoiser_phase.MIDDLE_SHARE + (1 - denoiser_phase.MIDDLE_SHARE) * (high - low) / 1000
    assert abs(inside - expected) < 0.06


def test_learning_rate_rises_stays_and_falls():
    """The size of Adam's steps on a constant gradient is the rate, but for the weight decay."""
    optimizer = adamw_with_cooldown(0.1, 40, 0.25)
    params = {"x": jnp.zeros(1)}
    state, sizes = optimizer.init(params), []
    for _ in range(40):
        updates, state = optimizer.update({"x": jnp.ones(1)}, state, params)
        sizes.append(-float(updates["x"][0]))
    np.testing.assert_allclose(sizes[:5], [0, 0.025, 0.05, 0.075, 0.1], atol=1e-3)
    np.testing.assert_allclose(sizes[4:30], 0.1, atol=1e-3)
    assert sizes[-1] < 0.02 and all(np.diff(sizes[30:]) < 0)


def test_blocks_start_as_identity():
    tree = {"block": {"conv1": {"kernel": jnp.ones(2)}, "conv2": {"kernel": jnp.ones(2)}},
            "proj_out": {"bias": jnp.ones(2)}, "conv_out": {"kernel": jnp.ones(2)}}  # fmt: skip
    params = jax.tree_util.tree_map_with_path(denoiser_phase._zero_residual, tree)
    assert params["block"]["conv1"]["kernel"].sum() == 2
    assert sum(leaf.sum() for leaf in jax.tree.leaves(params)) == 2
