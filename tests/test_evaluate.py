"""The evaluate command: zero-shot rows, and rows of prompts from folders."""

import json

import jax
import pytest

from dsd_jax import evaluate
from dsd_jax.cli import run_command
from dsd_jax.config import score_spec
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.prompts.prompt_params import init_lora
from dsd_jax.weights.model_saving import save
from tests.few_items import few_items
from tests.few_shots import few_model, quick_compilation
from tests.random_model import random_model


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with few_items(tmp_path_factory.mktemp("home")), quick_compilation():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model, and beside it two folders of prompts that change nothing."""
    folder = tmp_path_factory.mktemp("models")
    model = few_model()
    save(model, folder / "random")
    for seed in (0, 1):
        tree = {"lora": init_lora(model.unet, jax.random.key(seed), rank=2)}
        write_prompts(folder / f"seed-{seed}", tree, {})
    return folder


def options(folder, workdir, *more):
    fields = {"weights": folder / "random", "per_kind": 2, "timesteps": 2, "cpu_devices": -1}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=configs/emoji.py", f"--workdir={workdir}", *overrides, *more]


def test_zero_shot_and_prompts_side_by_side(folder, tmp_path, capfd):
    names = [str(folder / f"seed-{seed}") for seed in (0, 1)]
    evaluate.main(options(folder, tmp_path, *(f"--prompts={name}" for name in names)))
    assert {file.name for file in tmp_path.iterdir()} == {
        *("run.json", "config.json", "report.json", "report.md", "report.html")
    }
    report = json.loads((tmp_path / "report.json").read_text())
    rows = {
        (row["method"], row["prompts"], row["split"]): row
        for row in report["results"]
        if row["kind"] == "mean"
    }
    assert {prompts for _, prompts, _ in rows} == {None, *names}
    assert len(rows) == 5 * 3 * 2
    for (method, prompts, split), row in rows.items():
        assert row["n"] == 5 * 2
        assert row["value"] == rows[method, None, split]["value"], (method, prompts, split)
    assert "unseen-artist" in capfd.readouterr().out


def test_the_bundled_clip_beside_a_model(folder, tmp_path):
    evaluate.main(options(folder, tmp_path, "--config.clip=tiny-clip", "--config.methods=noise"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["clip"] == "tiny-clip"
    means = [row for row in report["results"] if row["kind"] == "mean"]
    assert [row["method"] for row in means] == ["noise", "clip"] * 2
    clip = {row["split"]: row["value"] for row in means if row["method"] == "clip"}
    assert min(clip.values()) >= 0.6  # it knows the pictures, the random model does not
    against = {row["baseline_method"] for row in report["comparisons"] if row["method"] == "noise"}
    assert "clip" in against


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            "--config.methods=clip",
            "methods can't be read: method 'clip' is unknown; expected",
        ),
        ("--config.layers=mid", "layer 'mid' is unknown; expected 'all' or some of down_blocks"),
        ("--config.splits=test", "splits: 'test' is unknown; expected seen-artists/shots"),
        ("--config.method=dsd", "the config has no field 'method'; did you mean methods?"),
        ("--prompts=nowhere", "nowhere holds no prompts"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(folder, tmp_path, mistake, message, capfd):
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluate.main, options(folder, tmp_path, mistake))
    assert stopped.value.code == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_prompts_of_another_model(folder, tmp_path, capfd):
    other = {"lora": init_lora(random_model(block_out_channels=[12, 16]).unet, jax.random.key(0))}
    write_prompts(tmp_path / "other", other, {})
    with pytest.raises(SystemExit) as stopped:
        run_command(evaluate.main, options(folder, tmp_path, f"--prompts={tmp_path / 'other'}"))
    assert stopped.value.code == 2
    assert "trained for another model" in capfd.readouterr().err


def test_prompts_get_the_row_they_were_learned_for(folder, tmp_path, capfd):
    tree = {"lora": init_lora(few_model().unet, jax.random.key(0), rank=2)}
    about = {"recipe": {"methods": ["relative"]}, "timesteps": score_spec.timesteps(3).tolist()}
    write_prompts(tmp_path / "learned", tree, about)
    more = (f"--prompts={tmp_path / 'learned'}", "--config.methods=noise")
    evaluate.main(options(folder, tmp_path / "run", *more))
    rows = json.loads((tmp_path / "run" / "report.json").read_text())["results"]
    assert {(row["method"], row["prompts"]) for row in rows} == {
        *(("noise", None), ("relative@3", None), ("relative@3", str(tmp_path / "learned")))
    }
    assert "was learned for relative@3, which is added to methods" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"weights_digest": "0" * 64, "weights": "a model"}, "name the model they belong to"),
        ({"layers": ["mid_block.attentions.0"]}, "set layers to mid_block.attentions.0"),
    ],
)
def test_prompts_of_other_weights_or_layers_are_refused(folder, tmp_path, about, message, capfd):
    tree = {"lora": init_lora(few_model().unet, jax.random.key(0), rank=2)}
    write_prompts(tmp_path / "learned", tree, about)
    with pytest.raises(SystemExit) as stopped:
        more = (f"--prompts={tmp_path / 'learned'}", "--config.methods=noise")
        run_command(evaluate.main, options(folder, tmp_path / "run", *more))
    assert stopped.value.code == 2
    assert message in capfd.readouterr().err
