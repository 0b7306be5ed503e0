"""The small CLIP's training: its batches, and that it learns which caption is whose."""

import jax
import numpy as np
import pytest

from dsd_jax.diffusion.tokenization import tokenize
from dsd_jax.models.clip import CLIPConfig
from dsd_jax.pretraining import clip_phase
from dsd_jax.pretraining.scene_batches import ScenePool, training_stream
from dsd_jax.pretraining.train_phase import adamw_with_cooldown, create_state, make_update
from tests.random_clip import CLIP, random_clip


@pytest.fixture(scope="module")
def pool():
    stream = training_stream()
    return ScenePool(stream, lambda images: images[:, ::8, ::8], seed=0, size=256, passes=2)


def batch(pool, step, pairs=8):
    tokenizer = random_clip().tokenizer
    return clip_phase.batch(pool, lambda captions: tokenize(tokenizer, captions), pairs, step)


def test_a_batch_depends_on_its_step_alone(pool):
    first, other, again = batch(pool, 3), batch(pool, 4), batch(pool, 3)
    assert first.images.shape == (8, 8, 8, 3) and first.images.dtype == np.uint8
    assert first.ids.shape == (8, 24) and first.ids.dtype == np.int32
    np.testing.assert_array_equal(first.ids, again.ids)
    np.testing.assert_array_equal(first.images, again.images)
    assert (first.ids != other.ids).any() and (first.images != other.images).any()


def test_it_learns_which_caption_is_whose(pool):
    config = CLIPConfig.from_json(CLIP)
    optimizer = adamw_with_cooldown(1e-2, 60, 0.3)
    state = create_state(clip_phase.init_clip(config, 0), optimizer)
    update, same = make_update(clip_phase.clip_gradients(config), optimizer), batch(pool, 0)
    losses = []
    for _ in range(60):
        state, metrics = update(state, same)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.3 * losses[0] and metrics["found"] > 0.9
    moved = jax.tree.map(
        lambda a, b: bool((a != b).any()), state.params, clip_phase.init_clip(config, 0)
    )
    assert all(jax.tree.leaves(moved))  # no parameter is left out, the logit scale included


def test_the_logit_scale_is_bounded(pool):
    config = CLIPConfig.from_json(CLIP)
    optimizer = adamw_with_cooldown(1e-2, 10, 0.3)
    params = clip_phase.init_clip(config, 0) | {"logit_scale": np.float32(9.0)}
    update = make_update(clip_phase.clip_gradients(config), optimizer)
    _, metrics = update(create_state(params, optimizer), batch(pool, 0))
    assert float(metrics["scale"]) == pytest.approx(100.0)
