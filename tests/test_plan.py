"""The command `plan`: what it refuses, and what it prints of a small network."""

import json

import pytest

from dsd_jax import plan
from dsd_jax.command import run_command
from dsd_jax.configuration import read_config
from dsd_jax.planning import job
from dsd_jax.run_config import RunConfig

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
    arguments = ["--topology=v5e:2x4", "--recipe=lora", "--batch=1", "--step=score"]
    assert run(*arguments, "--format=json") == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["step"] == "score" and found["topology"] == "v5e:2x4" and found["fits"]
    assert found["pairs"] == 8 * 2 and found["collectives"] == []


def test_gpus(capsys):
    assert run("--gpus=8", "--step=score", "--batch=1") == 0
    said = capsys.readouterr().out
    assert said.startswith("score for 8 NVIDIA GPUs: lowered and read back") and "no kernel" in said


@pytest.mark.parametrize(("model", "million"), [("sd21", 866), ("sd15", 860), ("sdxl", 2567)])
def test_published_models_need_no_download(model, million):
    from dsd_jax.models.unet import abstract_params
    from dsd_jax.weights.names import flatten

    config = read_config(RunConfig, f"configs/full_size.py:{model}", ())
    planned = job.read_job(config)
    leaves = flatten(abstract_params(planned.unet)).values()
    assert round(sum(leaf.size for leaf in leaves) / 1e6) == million
    assert planned.recipe.loss == "hinge" and planned.dtype == "bfloat16"


def test_the_compiler_may_be_missing(monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("--topology=v5e:2x4") == 2
    said = capsys.readouterr().err
    assert "libtpu, which is not installed; run pip install 'dsd_jax[plan]'" in said
