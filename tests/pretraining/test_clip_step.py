"""The small CLIP's training: its batches, and that it learns which caption is whose."""

import jax
import numpy as np
import pytest

from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.pretraining import clip_step
from dsd_jax.pretraining.denoiser_phase import Latents, optimiser, start
from dsd_jax.pretraining.scene_batches import training_stream
from tests.random_clip import CLIP, random_clip


@pytest.fixture(scope="module")
def pool():
    return Latents(lambda pictures: pictures[:, ::8, ::8], training_stream(), 0, 256, 2)


def batch(pool, step, pairs=8):
    tokenizer = random_clip().tokenizer
    return clip_step.batch(pool, lambda texts: tokenize(tokenizer, texts), 0, pairs, step)


def test_a_batch_depends_on_its_step_alone(pool):
    first, other, again = batch(pool, 3), batch(pool, 4), batch(pool, 3)
    assert first.pictures.shape == (8, 8, 8, 3) and first.pictures.dtype == np.uint8
    assert first.ids.shape == (8, 24) and first.ids.dtype == np.int32
    np.testing.assert_array_equal(first.ids, again.ids)
    np.testing.assert_array_equal(first.pictures, again.pictures)
    assert (first.ids != other.ids).any() and (first.pictures != other.pictures).any()


def test_it_learns_which_caption_is_whose(pool):
    shape = CLIPConfig.from_json(CLIP)
    transform = optimiser(1e-2, 60, 0.3)
    state = start(clip_step.init(shape, 0), transform)
    update, same = clip_step.update_function(shape, transform), batch(pool, 0)
    losses = []
    for _ in range(60):
        state, metrics = update(state, same)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0] and metrics["found"] > 0.9
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params, clip_step.init(shape, 0))
    assert all(jax.tree.leaves(moved))  # no parameter is left out, the logit scale included


def test_the_logit_scale_is_bounded(pool):
    shape = CLIPConfig.from_json(CLIP)
    transform = optimiser(1e-2, 10, 0.3)
    params = clip_step.init(shape, 0) | {"logit_scale": np.float32(9.0)}
    _, metrics = clip_step.update_function(shape, transform)(
        start(params, transform), batch(pool, 0)
    )
    assert float(metrics["scale"]) == pytest.approx(100.0)
