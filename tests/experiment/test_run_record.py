"""What a report tells of its run: settings, names in plain words, how learning went."""

from types import SimpleNamespace

import pytest

from dsd_jax.benchmarks.table_rows import LearnedPrompts
from dsd_jax.clip.fine_tuning import TunedClip
from dsd_jax.config.data_config import EmojiData
from dsd_jax.config.recipes import RecipeConfig
from dsd_jax.config.run_config import RunConfig
from dsd_jax.config.score_spec import parse_all
from dsd_jax.experiment.run_record import details_of
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.training.held_out_verdict import HeldOutVerdict

RECIPE = RecipeConfig(rank=16, methods=("itm", "relative", "dsd"), denoise=3.0)
METHODS = ("noise", "noise@10>5@50", "dsd/compat", "itm@1")


@pytest.fixture
def experiment():
    config = RunConfig(
        data=EmojiData(),
        methods=METHODS,
        seed=5,
        clip="tiny-clip",
        recipes=("lora",),
        learn={"lora": RECIPE, "unused": RecipeConfig(rank=8)},
    )
    return SimpleNamespace(
        config=config,
        specs=parse_all(METHODS, 4),
        clip=object(),
        workdir=SimpleNamespace(command="evaluate"),
    )


def test_settings_that_differ_from_the_defaults(experiment):
    evaluated = {setting.name for setting in details_of(experiment, {}, {}).settings}
    assert evaluated == {"seed", "clip", "methods"}  # evaluate learns nothing
    experiment.workdir = SimpleNamespace(command="train")
    settings = {setting.name: setting for setting in details_of(experiment, {}, {}).settings}
    assert settings["seed"].value == "5" and settings["seed"].default == "0"
    assert "draw" in settings["seed"].description
    assert settings["clip"].default == '""'
    assert settings["learn.lora.methods"].value == "itm, relative, dsd"
    assert settings["learn.lora.methods"].default == "attention"
    assert not any(name.startswith("learn.unused") for name in settings)
    assert {"weights", "splits", "learn.lora.kinds", "tune.steps"}.isdisjoint(settings)


def test_methods_in_plain_words(experiment):
    terms = dict(details_of(experiment, {}, {}).methods)
    assert list(terms) == [*METHODS, "clip"]
    assert terms["noise"].endswith("Mean over 4 noise levels.")
    assert "10 noise levels, for the best 5 candidates over 50" in terms["noise@10>5@50"]
    assert "batches of 16 items" in terms["dsd/compat"]
    assert terms["itm@1"].endswith("Mean over 1 noise level.")
    assert terms["clip"].startswith("tiny-clip, for comparison")


def test_prompts_in_plain_words_and_how_learning_went(experiment, tmp_path):
    learned, other = str(tmp_path / "learned"), str(tmp_path / "other")
    verdict = {"what": "LoRA", "kept": True, "gain": 0.2, "error": 0.05, "items": 51, "step": 20}
    metadata = {
        "recipe": RECIPE.model_dump(mode="json"),
        "shots": 256,
        "shots_from": "shots",
        "seed": 7,
        "kept_step": 20,
        "checks": {"0": 0.7, "20": 0.5},
        "verdicts": [verdict],
    }
    write_prompts(learned, {}, metadata)
    write_prompts(other, {}, {"from": "lora.safetensors"})
    prompts = {name: LearnedPrompts(("itm",), [{}]) for name in (learned, other)}
    refused = HeldOutVerdict(what="CLIP", kept=False, gain=-0.1, error=0.05, items=51, step=5)
    tuned = {"tuned-256": [TunedClip(SimpleNamespace(), {0: 0.7, 5: 0.8}, 0, refused)]}
    details = details_of(experiment, prompts, tuned)
    terms = dict(details.recipes)
    assert terms[learned].startswith("LoRA of rank 16 (small changes")
    assert "learned for itm, relative and dsd from 256 shots of shots, in 60 st" in terms[learned]
    assert "the matching images' noise is learned, too" in terms[learned]
    assert terms[other] == f"Converted from lora.safetensors; from {other}."
    assert "all params" in terms["tuned-256"]
    run, clip = details.learning
    assert (run.prompts, run.seed, run.kept_step) == (learned, 7, 20)
    assert run.losses == {0: 0.7, 20: 0.5} and run.gains[0].text == "+0.200 ± 0.050"
    assert (clip.prompts, clip.seed, clip.losses) == ("tuned-256", 5, {0: 0.7, 5: 0.8})
    assert not clip.gains[0].kept and clip.gains[0].what == "CLIP"
