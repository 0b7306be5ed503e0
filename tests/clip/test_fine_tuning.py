"""Fine-tuning a CLIP: it learns from few items, keeps only gains, and is repeatable."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.clip.fine_tuning import fine_tune
from dsd_jax.config.recipes import ClipRecipe
from dsd_jax.errors import Preempted, UserError
from dsd_jax.training import loop
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions
from tests.random_clip import random_clip

RECIPE = ClipRecipe(
    kind="full",
    steps=30,
    batch=8,
    learning_rate=1e-2,
    weight_decay=0.0,
    contrast=0.0,
    held_out=0.25,
    check_every=5,
    patience=6,
)
pytestmark = pytest.mark.usefixtures("quickly_compiled")
COLORS = ("red", "green", "blue")
COUNT = 24


@pytest.fixture(scope="module")
def clip():
    return random_clip()


def plain(color, rng):
    """A picture of nothing but one color, with noise."""
    channels = np.full(3, 40)
    channels[color] = 200
    return np.clip(channels + rng.integers(-20, 21, (8, 8, 3)), 0, 255).astype(np.uint8)


def two_pictures(count=COUNT):
    """Items of two images and one caption, which names the first one's color."""
    rng = np.random.default_rng(0)
    pixels = [
        np.stack([plain(i % 3, rng), plain((i + 1 + i // 3 % 2) % 3, rng)]) for i in range(count)
    ]
    return np.stack(pixels), [[f"a {COLORS[i % 3]} background"] for i in range(count)]


def two_captions(count=COUNT):
    """The other way round."""
    rng = np.random.default_rng(0)
    pixels = np.stack([plain(i % 3, rng)[None] for i in range(count)])
    return pixels, [[f"a {COLORS[(i + j) % 3]} background" for j in (0, 1)] for i in range(count)]


def losses_of(tuned):
    return list(tuned.checks.values())


# Two projections of a random tower's twelve numbers do not tell three colours apart by pictures.
@pytest.mark.parametrize(
    ("kind", "items"),
    [("full", two_pictures), ("full", two_captions), ("projections", two_captions)],
)
def test_it_learns_what_the_items_teach(clip, kind, items):
    pixels, captions = items()
    tuned = fine_tune(
        clip, pixels, captions, RECIPE.model_copy(update={"kind": kind, "steps": 60}), seed=0
    )
    assert tuned.kept > 0 and tuned.kept in tuned.checks
    assert tuned.checks[tuned.kept] == min(losses_of(tuned)) < 0.9 * tuned.checks[0]
    before, after = (x.item_scores(pixels, captions).reshape(COUNT, 2) for x in (clip, tuned.clip))
    assert np.mean(after[:, 0] > after[:, 1]) > np.mean(before[:, 0] > before[:, 1])


def test_only_what_the_kind_names_is_trained(clip):
    tuned = fine_tune(
        clip,
        *two_captions(),
        RECIPE.model_copy(update={"kind": "projections", "steps": 60}),
        seed=0,
    )
    assert tuned.kept
    for name, before in clip.params.items():
        moved = jax.tree.map(lambda a, b: np.abs(a - b).max() > 0, before, tuned.clip.params[name])
        assert all(jax.tree.leaves(moved)) == ("projection" in name), name


def test_the_given_clip_stays_as_it_is(clip):
    before = jax.tree.map(np.array, clip.params)
    fine_tune(clip, *two_pictures(), RECIPE, seed=0)
    jax.tree.map(np.testing.assert_array_equal, clip.params, before)


def test_the_seed_decides_everything(clip):
    pixels, captions = two_pictures()
    first, again, other = (fine_tune(clip, pixels, captions, RECIPE, seed) for seed in (1, 1, 2))
    assert first.checks == again.checks
    jax.tree.map(np.testing.assert_array_equal, first.clip.params, again.clip.params)
    assert first.checks != other.checks


def test_what_does_not_help_those_held_out_is_not_kept(clip):
    """Captions drawn by lot: what is learned of some says nothing of others."""
    pixels, captions = two_pictures()
    lots = np.random.default_rng(1).random(COUNT) < 0.5
    pixels = np.where(lots[:, None, None, None, None], pixels, pixels[:, ::-1])
    tuned = fine_tune(clip, pixels, captions, RECIPE, seed=0)
    assert tuned.kept == 0 and tuned.clip is clip


def test_it_stops_when_patience_ends(clip):
    recipe = RECIPE.model_copy(update={"learning_rate": 0.0, "patience": 2})
    assert list(fine_tune(clip, *two_pictures(), recipe, seed=0).checks) == [0, 5, 10]


def test_the_contrast_between_items_takes_part(clip):
    pixels, captions = two_pictures()
    without, with_it = (
        fine_tune(clip, pixels, captions, RECIPE.model_copy(update={"contrast": contrast}), seed=0)
        for contrast in (0.0, 1.0)
    )
    assert without.checks[0] == with_it.checks[0] and without.checks[5] != with_it.checks[5]


def test_16_bit_weights_learn_in_float32(clip):
    """Steps that 16 bits would round away."""
    half = replace(
        clip, params=jax.tree.map(lambda x: x.astype(jnp.bfloat16) if x.ndim else x, clip.params)
    )
    recipe = RECIPE.model_copy(update={"learning_rate": 3e-3, "steps": 60})
    tuned = fine_tune(half, *two_pictures(), recipe, seed=0)
    assert tuned.clip.dtype == jnp.bfloat16 and tuned.kept
    full = fine_tune(clip, *two_pictures(), recipe, seed=0)
    assert tuned.checks[tuned.kept] == pytest.approx(full.checks[full.kept], abs=0.05)


def test_stopped_and_resumed_is_the_same(clip, tmp_path, monkeypatch):
    pixels, captions = two_pictures()
    whole = fine_tune(clip, pixels, captions, RECIPE, seed=0)

    def tune():
        with Checkpoints(tmp_path / "run", {}) as saved:
            return fine_tune(
                clip, pixels, captions, RECIPE, seed=0, options=LoopOptions("fine-tuning", saved)
            )

    with monkeypatch.context() as patch:
        patch.setattr(loop, "preemption_guard", stop_after(12))
        with pytest.raises(Preempted):
            tune()
    resumed = tune()
    assert resumed.checks == whole.checks and resumed.kept == whole.kept
    jax.tree.map(np.testing.assert_array_equal, resumed.clip.params, whole.clip.params)


def stop_after(steps):
    from contextlib import nullcontext

    return lambda: nullcontext(lambda done: done == steps)


def test_items_of_several_images_and_captions(clip):
    pixels, captions = two_pictures(4)
    with pytest.raises(UserError, match="items have 2 images and 2 captions each"):
        fine_tune(clip, pixels, [row * 2 for row in captions], RECIPE, seed=0)


@pytest.mark.parametrize(("count", "clusters"), [(1, None), (8, None), (24, [0, 1, 2] * 8)])
def test_too_few_items_to_tell_a_gain(clip, count, clusters):
    """Nothing is learned then: neither from few items nor from many of the same few images."""
    with pytest.warns(UserWarning, match=f"fine-tuning: {count} shots hold out fewer than 5"):
        tuned = fine_tune(clip, *two_pictures(count), RECIPE, seed=0, clusters=clusters)
    assert tuned.clip is clip and (tuned.checks, tuned.kept) == ({}, 0)
