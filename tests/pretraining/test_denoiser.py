"""The denoiser's training: what each step sees depends on its number alone."""

from collections import Counter
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.data import scenes
from dsd_jax.data.sprites import load_sprites
from dsd_jax.pretraining import denoiser
from dsd_jax.pretraining.denoiser import DRAWS, Latents

POOL, BATCH, PASSES = 512, 64, 2
STEPS = POOL // BATCH  # of one pass over a pool


class Numbered:
    """A stream whose pictures and scenes are numbers, different for each key and place."""

    sprites = SimpleNamespace(concepts=("cat",))

    def __init__(self):
        self.drawn = []

    def batch(self, key, count):
        self.drawn.append(tuple(key))
        first = 10_000 * key[2] + 1_000 * key[3]
        return np.arange(first, first + count), list(range(first, first + count))


def latents():
    return Latents(lambda images: images.astype(float), Numbered(), 0, POOL, PASSES)


@pytest.fixture(scope="module")
def course():
    """The pictures of each step for two pools and a bit."""
    source = latents()
    return [source.rows(step, BATCH) for step in range(2 * PASSES * STEPS + 1)]


def test_each_picture_of_a_pool_is_used_once_a_pass(course):
    for number in range(2):
        here = course[number * PASSES * STEPS : (number + 1) * PASSES * STEPS]
        counts = Counter(picture for rows, _ in here for picture in rows.tolist())
        assert len(counts) == POOL and set(counts.values()) == {PASSES}
        first, second = (
            [picture for rows, _ in part for picture in rows]
            for part in (here[:STEPS], here[STEPS:])
        )
        assert first != second and sorted(first) == sorted(second)
    assert not {*course[0][0]} & {*course[-1][0]}


def test_scenes_go_with_their_pictures(course):
    for rows, drawn in course:
        assert rows.tolist() == drawn


def test_a_resumed_run_sees_the_same(course):
    source = latents()
    for step in (2 * PASSES * STEPS, 5, PASSES * STEPS + 1):
        np.testing.assert_array_equal(source.rows(step, BATCH)[0], course[step][0])


def test_pools_are_drawn_once_while_they_last():
    source = latents()
    for step in range(PASSES * STEPS):
        source.rows(step, BATCH)
    assert source._stream.drawn == [(0, 3, 0, 0), (0, 3, 0, 1)]


@pytest.fixture(scope="module")
def batch():
    """200 pictures of one scene with two things and one with one, in turns of two; ids, texts."""
    sprites, rng = load_sprites(), np.random.default_rng(0)
    pairs = scenes.allowed_pairs(len(sprites.concepts))
    two, one = (
        scenes.lay_out(rng, scenes.sample_plan(rng, pairs, [0], single=single)) for single in (0, 1)
    )
    known = {}
    source = SimpleNamespace(
        rows=lambda step, count: (np.zeros((count, 8, 8, 4)), [two, two, one, one] * (count // 4)),
        concepts=sprites.concepts,
    )

    def tokenise(captions):
        numbers = [known.setdefault(text, len(known)) for text in captions]
        return np.repeat(np.array(numbers, np.int32)[:, None], 77, axis=1)

    rows = denoiser.batch(source, tokenise, 0, 200, 3)
    return rows, np.array(list(known))


def test_captions_are_drawn_anew_and_some_left_out(batch):
    rows, texts = batch
    captions = texts[rows.ids[:, 0]].tolist()
    assert 8 <= captions.count("") <= 35
    assert len(set(captions)) > 4


def test_every_second_picture_has_an_exchanged_caption_if_it_can(batch):
    rows, texts = batch
    right, wrong = texts[rows.ids[::2, 0]], texts[rows.exchanged_ids[:, 0]]
    assert len(wrong) == 100
    can = (np.arange(100) % 2 == 0) & (right != "")
    np.testing.assert_array_equal(right != wrong, can)


def test_contrast_asks_for_a_gap_and_pulls_no_harder_than_the_error_itself():
    right = jnp.array([0.5, 0.5, 0.01, 0.5])
    wrong = jnp.array([0.5, 1.0, 0.01, 0.1])
    found = denoiser.contrast(right, wrong)
    unit = denoiser.GAP * right
    np.testing.assert_allclose(found[0], unit[0] * np.log(2), rtol=1e-6)
    assert found[1] < 1e-4 * found[0]  # far enough
    np.testing.assert_allclose(found[2] / right[2], found[0] / right[0], rtol=1e-5)  # relative
    pull, push = jax.grad(lambda *e: denoiser.contrast(*e).sum(), argnums=(0, 1))(right, wrong)
    np.testing.assert_allclose(pull, [0.5, 0.0, 0.5, 1.0], atol=1e-4)
    np.testing.assert_allclose(push, -pull, atol=1e-6)


def tiny_loss(order, same):
    """(loss, metrics) of two pictures; `same`: nothing is exchanged in the first."""
    from dsd_jax.diffusion import Schedule
    from tests.random_model import random_model

    model = random_model()
    ids = np.arange(2 * 77, dtype=np.int32).reshape(2, 77) % 5
    rows = denoiser.Batch(
        np.random.default_rng(0).standard_normal((2, *model.latent_shape)).astype(np.float32),
        ids,
        ids[:1] if same else ids[:1] + 1,
        np.full((2, DRAWS), 500, np.int32),
    )
    loss = denoiser.loss_function(model.unet, model.text, Schedule(), order)
    return loss(
        {"unet": model.params["unet"], "text": model.params["text"]}, rows, jax.random.key(0)
    )


def test_loss_is_the_denoising_error_and_the_contrast():
    alone, metrics = tiny_loss(0.0, same=False)
    np.testing.assert_allclose(alone, metrics["denoising"], rtol=1e-6)
    both, again = tiny_loss(2.0, same=False)
    np.testing.assert_allclose(again["denoising"], metrics["denoising"], rtol=1e-6)
    assert both > alone and again["order"] in (0.0, 1.0)


def test_nothing_exchanged_costs_nothing():
    total, metrics = tiny_loss(2.0, same=True)
    np.testing.assert_allclose(total, metrics["denoising"], rtol=1e-6)


def test_timesteps_are_mostly_in_the_middle(batch):
    steps = batch[0].timesteps
    assert steps.shape == (200, DRAWS) and steps.dtype == np.int32
    assert steps.min() >= 0 and steps.max() < 1000
    low, high = denoiser.MIDDLE
    inside = ((steps >= low) & (steps < high)).mean()
    expected = denoiser.MIDDLE_SHARE + (1 - denoiser.MIDDLE_SHARE) * (high - low) / 1000
    assert abs(inside - expected) < 0.06


def test_learning_rate_rises_stays_and_falls():
    """The size of Adam's steps on a constant gradient is the rate, but for the weight decay."""
    transform = denoiser.optimiser(0.1, 40, 0.25)
    params = {"x": jnp.zeros(1)}
    state, sizes = transform.init(params), []
    for _ in range(40):
        updates, state = transform.update({"x": jnp.ones(1)}, state, params)
        sizes.append(-float(updates["x"][0]))
    np.testing.assert_allclose(sizes[:5], [0, 0.025, 0.05, 0.075, 0.1], atol=1e-3)
    np.testing.assert_allclose(sizes[4:30], 0.1, atol=1e-3)
    assert sizes[-1] < 0.02 and all(np.diff(sizes[30:]) < 0)


def test_blocks_start_as_identity():
    tree = {"block": {"conv1": {"kernel": jnp.ones(2)}, "conv2": {"kernel": jnp.ones(2)}},
            "proj_out": {"bias": jnp.ones(2)}, "conv_out": {"kernel": jnp.ones(2)}}  # fmt: skip
    found = jax.tree_util.tree_map_with_path(denoiser._zero_residual, tree)
    assert found["block"]["conv1"]["kernel"].sum() == 2
    assert sum(leaf.sum() for leaf in jax.tree.leaves(found)) == 2
