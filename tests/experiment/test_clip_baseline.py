"""The CLIP baseline: it gets the same items and shots as the diffusion model."""

from types import SimpleNamespace

import numpy as np
import pytest

from dsd_jax.benchmarks.splits import ShotDraw, Split
from dsd_jax.clip.fine_tuning import TunedClip
from dsd_jax.config.data_config import EmojiData
from dsd_jax.config.recipes import RecipeConfig
from dsd_jax.config.run_config import RunConfig
from dsd_jax.data.examples import Benchmark
from dsd_jax.experiment import clip_baseline
from dsd_jax.experiment.clip_baseline import clip_scores, read_clip_shots
from tests.few_shots import COUNT, examples, pictures
from tests.random_clip import random_clip

BENCHMARK = Benchmark("made", ("shots",), lambda _: examples(20))


@pytest.fixture(scope="module")
def clip():
    return random_clip()


@pytest.fixture(scope="module")
def expected(clip):
    return np.asarray(clip.item_scores(pictures(), examples().captions))


@pytest.mark.parametrize("together", [3, 256])
def test_scores_are_those_of_the_items_whatever_is_in_memory(clip, expected, monkeypatch, together):
    monkeypatch.setattr(clip_baseline, "READ_TOGETHER", together)
    split = Split("test", examples(), [7, *range(COUNT)])
    (found,) = clip_scores(clip, {}, split).values()
    assert found.shape == (COUNT + 1, 2, 1)
    np.testing.assert_allclose(found, expected[[7, *range(COUNT)]], rtol=0, atol=1e-4)


def test_tuned_clips_have_rows_of_their_own(clip, expected):
    split = Split("test", examples(), list(range(COUNT)))
    found = clip_scores(clip, {"tuned-16": [clip, clip]}, split)
    keys = [("clip", "", 0), ("clip", "tuned-16", 0), ("clip", "tuned-16", 1)]
    assert list(found) == keys
    for key in keys:
        np.testing.assert_allclose(found[key], expected, rtol=0, atol=1e-4)


def test_the_shots_are_those_of_the_prompts(clip):
    draw = ShotDraw("shots", 6, 3)
    numbers = draw.indices(examples(20).kinds)
    pixels, captions, clusters = read_clip_shots(clip, BENCHMARK, draw)
    np.testing.assert_array_equal(pixels, pictures(20)[numbers])
    assert captions == [examples(20).captions[number] for number in numbers]
    assert clusters == [examples(20).clusters[number] for number in numbers]


def test_every_draw_of_shots_is_tuned_on(clip, tmp_path, monkeypatch):
    seen = []

    def fine_tune(clip, pixels, captions, recipe, seed, *, clusters, options):
        seen.append((options.name, seed, captions, recipe.learning_rate))
        assert len(clusters) == len(captions)
        return TunedClip(clip, {}, 0)

    monkeypatch.setattr(clip_baseline, "fine_tune", fine_tune)
    config = RunConfig(
        data=EmojiData(),
        shots=(4, 6, 0.2),  # a fifth of 20 is 4 again
        seeds=2,
        seed=5,
        clip="random",
        recipes=("any",),
        learn={"any": RecipeConfig()},
    )
    experiment = SimpleNamespace(
        config=config, folder=tmp_path, clip=clip, benchmark=BENCHMARK, progress=False
    )
    tuned = clip_baseline.clip_sweep(experiment)
    assert {label: len(clips) for label, clips in tuned.items()} == {"tuned-4": 2, "tuned-6": 2}
    assert [name for name, *_ in seen] == [
        *("clip-4-5", "clip-4-6", "clip-6-5", "clip-6-6"),
    ]
    for _, seed, captions, rate in seen:
        draw = ShotDraw("shots", len(captions), seed)
        assert captions == read_clip_shots(clip, BENCHMARK, draw).captions
        assert rate == config.tune.learning_rate
