"""The command `plan`: what it refuses, and what it prints of a small network."""

import json
import re

import pytest

from dsd_jax import plan
from dsd_jax.cli import run_command
from dsd_jax.config.config_files import read_config
from dsd_jax.config.run_config import RunConfig
from dsd_jax.planning.planned_run import read_planned_run
from dsd_jax.planning.run_stages import stages_of

CONFIG = "configs/emoji.py"


def run(*arguments):
    with pytest.raises(SystemExit) as stop:
        run_command(plan.main, [f"--config={CONFIG}", *arguments])
    return stop.value.code


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to plan for; name a slice by --topology=v5e:2x4, or --gpus=8"),
        (["--topology=v5e:2x4", "--batch=0"], "--batch=0; expected 1 or more"),
        (["--topology=v5e:2x2x2"], "a slice of v5e has 2 sides"),
        (["--topology=moon"], "--topology=moon is not FAMILY:SHAPE"),
        (["--gpus=8", "--recipe=lor"], "recipe 'lor' is unknown; expected one of adapted"),
        (["--gpus=8", "--recipe=weights"], "recipe 'weights' learns weights without gradients"),
        (
            ["--gpus=8", "--step=tune"],
            "--step=tune: a run of this config has no such stage",
        ),
        (["--gpus=8", "--config.weights=nowhere"], "There is no model at 'nowhere'"),
        (
            ["--gpus=8", "--config.dtype=int8"],
            "dtype is 'int8', expected 'float32', 'bfloat16'",
        ),
        (["--gpus=8", "--config.fsdp=3"], "fsdp is 3, which does not divide 8 GPUs"),
    ],
)
def test_mistakes(arguments, message, capsys):
    assert run(*arguments) == 2
    assert message in capsys.readouterr().err


def test_what_is_printed_of_the_bundled_model(capsys):
    """And what is said meanwhile: a stage takes minutes to compile."""
    assert run("--topology=v5e:2x4", "--step=encode", "--format=json") == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [one["stage"] for one in found] == ["encode images", "encode captions"]
    assert all(one["topology"] == "v5e:2x4" and one["fits"] for one in found)
    assert found[0]["size"] == "32 images" and found[0]["pairs"] == 8 * 32
    said = printed.err.splitlines()
    assert said[0] == "encode images on v5e:2x4: compiling"
    assert re.fullmatch(r"encode images on v5e:2x4: 0.\d\d of 15.75 GiB \(\d+ s\)", said[1])
    assert said[-1].startswith("v5e:2x4: every stage fits; the largest is encode images, 0.")


def test_gpus(capsys):
    assert run("--gpus=8", "--step=encode") == 0
    said = capsys.readouterr().out
    assert said.startswith("encode images for 8 NVIDIA GPUs: lowered and read back")
    assert "no kernel" in said


@pytest.mark.parametrize(
    ("config", "trained", "item"),
    [
        ("comvg.py", ["authors"], (2, 1)),
        ("vqa.py", ["authors"], (1, 10)),
        ("full_size.py", ["prompts"], (2, 1)),
        ("full_size.py:sdxl", ["prompts"], (2, 1)),
    ],
)
def test_configs_are_planned_as_typed(config, trained, item):
    planned = read_planned_run(read_config(RunConfig, f"configs/{config}", ()))
    assert list(planned.trained) == trained and (planned.images, planned.captions) == item
    assert [one.name for one in stages_of(planned)][2:] == ["shots", "train", "held-out", "score"]


def test_a_clip_is_planned_too():
    fields = [("clip", "openai/clip-vit-large-patch14")]
    planned = read_planned_run(read_config(RunConfig, "configs/full_size.py", fields))
    assert planned.clip.vision.layers == 24 and planned.tune.batch == 64
    assert [one.name for one in stages_of(planned)][-1] == "tune"


@pytest.mark.parametrize(("model", "million"), [("sd21", 866), ("sd15", 860), ("sdxl", 2567)])
def test_published_models_need_no_download(model, million):
    from dsd_jax.models.params import flatten
    from dsd_jax.models.unet import abstract_params

    config = read_config(RunConfig, f"configs/full_size.py:{model}", ())
    planned = read_planned_run(config)
    leaves = flatten(abstract_params(planned.unet)).values()
    assert round(sum(leaf.size for leaf in leaves) / 1e6) == million
    assert planned.recipes["prompts"].loss == "hinge" and planned.dtype == "bfloat16"
    width = sum(text.hidden_size for text in planned.texts)
    assert width == planned.unet.cross_attention_dim and planned.image_size == planned.latent[0] * 8


def test_the_compiler_may_be_missing(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("--topology=v5e:2x4") == 2
    said = capsys.readouterr().err
    assert "libtpu, which is not installed; run " in said and "--target" in said
