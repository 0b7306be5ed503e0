"""The train command from end to end on a tiny model: its files, and what a second start does."""

import contextlib
import datetime
import io
import json
import re
import shutil

import numpy as np
import pytest

from dsd_jax import train
from dsd_jax.cli import run_command
from dsd_jax.errors import UserError
from dsd_jax.experiment import sweep
from dsd_jax.few_shot.prompt_training import TrainedPrompts
from dsd_jax.prompts.prompt_files import read_metadata, read_prompts
from dsd_jax.report.result_rows import COMPARISON_FIELDS, OPTIONAL_FIELDS, ROW_FIELDS
from dsd_jax.weights.model_loading import load
from dsd_jax.weights.model_saving import save
from tests.few_items import few_items
from tests.few_shots import LORA, NOISES, few_model, quick_compilation

METHODS = ("attention", "noise", "itm", "relative", "dsd")
SERVED = ("attention", "relative")
WEIGHED = ("attention", "dsd")
KINDS = ("subject", "object", "relation", "size", "background", "mean")


def options(folder, workdir, *more):
    """Return the command's arguments: two seeds of ten shots, ten items per split."""
    lora = {f"learn.lora.{name}": value for name, value in LORA.items()}
    fields = {
        "weights": folder,
        "per_kind": 2,
        "seeds": 2,
        "shots": 10,
        "timesteps": 2,
        "cpu_devices": -1,  # as many as this process has
        "learn.weights.methods": WEIGHED,
        "noises": NOISES,
        "recipes": ("lora", "weights"),
        "learn.lora.methods": SERVED,
        "learn.lora.kinds": ("lora",),
        "learn.lora.patience": 10,
        "learn.weights.ridges": 1,
    }
    texts = {
        name: ",".join(map(str, value)) if isinstance(value, tuple) else value
        for name, value in (lora | fields).items()
    }
    overrides = [f"--config.{name}={text}" for name, text in texts.items()]
    return ["--config=configs/emoji.py", f"--workdir={workdir}", *overrides, *more]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with few_items(tmp_path_factory.mktemp("home")), quick_compilation():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a model."""
    folder = tmp_path_factory.mktemp("models") / "random"
    save(few_model(), folder)
    return folder


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    """The workdir of a finished run, and what it printed."""
    workdir, printed = tmp_path_factory.mktemp("runs") / "emoji", io.StringIO()
    with contextlib.redirect_stdout(printed):
        train.main(options(folder, workdir))
    return workdir, printed.getvalue()


@pytest.fixture
def workdir(run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(run[0], tmp_path / "emoji")


@pytest.fixture(scope="module")
def report(run):
    return json.loads((run[0] / "report.json").read_text())


def test_files(run):
    names = {file.name for file in run[0].iterdir()}
    assert names == {
        *(
            "run.json",
            "config.json",
            "metrics.jsonl",
            "checkpoints",
            "prompts",
            "report.json",
            "report.md",
            "report.html",
        )
    }
    found = {str(file.relative_to(run[0] / "prompts")) for file in run[0].glob("prompts/*/*")}
    assert found == {f"{label}-10/seed-{seed}" for label in ("lora", "weights") for seed in (0, 1)}
    assert {file.name for file in run[0].glob("checkpoints/lora*")} == {"lora-10-0", "lora-10-1"}
    assert "<html" in (run[0] / "report.html").read_text()


def test_config_as_it_ran(run, folder, report):
    config = json.loads((run[0] / "config.json").read_text())
    assert config["weights"] == str(folder) and config["learn"]["lora"]["steps"] == LORA["steps"]
    assert report["config"] == config


def test_metrics(run):
    lines = [json.loads(line) for line in (run[0] / "metrics.jsonl").read_text().splitlines()]
    trained = [(line["phase"], line["step"]) for line in lines if "step" in line]
    assert trained == [(f"lora-10-{seed}", LORA["steps"]) for seed in (0, 1)]
    looks = [line for line in lines if "held_out" in line]
    assert [line["phase"] for line in looks] == [
        f"{label}-10-{seed}" for seed in (0, 1) for label in ("lora", "weights")
    ]
    assert list(looks[0]["held_out"]) == ["0", "2", "4", "6"]
    assert str(looks[0]["kept_step"]) in looks[0]["held_out"]


def test_header(report, folder):
    assert report["benchmark"] == "emoji" and report["weights"] == str(folder)
    assert report["seed"] == 0 and report["seconds"] > 0 and "cpu" in report["device"]
    assert {"python", "jax", "flax", "optax"} <= set(report["versions"])
    begin = r"(dsd-jax |python -m dsd_jax[ .])train --config=configs/emoji\.py "
    assert re.match(begin, report["command"])
    assert "--config.seeds=2" in report["command"]
    assert datetime.datetime.fromisoformat(report["date"]).utcoffset() == datetime.timedelta()


def test_rows(report):
    """There are zero-shot and few-shot rows of every method, split and kind, and their means."""
    rows = report["results"]
    optional = set(OPTIONAL_FIELDS)
    assert all(tuple(name for name in row if name not in optional) == ROW_FIELDS for row in rows)
    verdicts = [{"kept", "refused"} & set(row) for row in rows if row["prompts"] is None]
    assert not any(verdicts)
    assert all("kept" in row or "refused" in row for row in rows if row["prompts"])
    # Two items, or ten of which most are right or wrong, say too little for a standard error.
    assert all("interval" in row for row in rows if row["n"] == 2)
    series = {(row["method"], row["prompts"], row["split"], row["kind"]) for row in rows}
    prompts = [
        *((name, None) for name in METHODS),
        *((name, "lora-10") for name in SERVED),
        *((name, "weights-10") for name in WEIGHED),
    ]
    assert len(series) == len(rows)
    assert series == {
        (*one, split, kind)
        for one in prompts
        for split in ("seen-artists", "unseen-artist")
        for kind in KINDS
    }
    for row in rows:
        assert row["metric"] == "accuracy" and row["chance"] == 0.5
        assert row["n"] == (10 if row["kind"] == "mean" else 2)
        assert 0 <= row["value"] <= 1 and 0 <= row["stderr"] < 1


def test_comparisons(report):
    rows = report["comparisons"]
    fields = [tuple(name for name in row if name != "interval") for row in rows]
    assert set(fields) == {COMPARISON_FIELDS}
    assert {row["prompts"] for row in rows} == {None, "lora-10", "weights-10"}
    value = {
        (row["method"], row["prompts"], row["split"], row["kind"]): row["value"]
        for row in report["results"]
    }
    for row in rows:
        here = row["split"], row["kind"]
        few = value[row["method"], row["prompts"], *here]
        zero = value[row["baseline_method"], row["baseline_prompts"], *here]
        np.testing.assert_allclose(row["difference"], few - zero, atol=1e-9)


def test_the_report_says_why_prompts_were_kept_or_refused(run, report):
    runs = {(one["prompts"], one["seed"]): one for one in report["learning"]}
    assert set(runs) == {(name, seed) for name in ("lora-10", "weights-10") for seed in (0, 1)}
    for (name, seed), one in runs.items():
        place = run[0] / "prompts" / name / f"seed-{seed}"
        assert one["kept_step"] == read_metadata(place).kept_step
        assert len(one["gains"]) == (1 if name == "lora-10" else len(WEIGHED))
    losses = list(runs["lora-10", 0]["losses"].values())
    (gain,) = runs["lora-10", 0]["gains"]
    np.testing.assert_allclose(gain["gain"], losses[0] - min(losses), atol=1e-5)
    assert "weights of attention" in (run[0] / "report.md").read_text()


def test_the_page_tells_what_the_rows_are(run):
    page = (run[0] / "report.html").read_text()
    for words in (
        "LoRA of rank 2",
        "Weights of the score&#39;s parts",
        "10 shots of unseen-artist",
    ):
        assert words in page
    assert "Mean over 2 noise levels" in page and "learn.lora.learning_rate" in page
    assert "where the model looks for the word" in page


def test_table_is_printed(run):
    for word in ("unseen-artist", "seen-artists", "relation", "lora-10", *METHODS):
        assert word in run[1]


def test_prompts_say_what_they_are_for(run, folder):
    place = run[0] / "prompts" / "lora-10" / "seed-1"
    about = read_metadata(place).stated()
    assert about["weights"] == str(folder) and about["shots"] == 10 and about["seed"] == 1
    assert about["shots_from"] == "unseen-artist/shots"
    assert about["kept_step"] in (0, 2, 4, 6)
    prompts = read_prompts(place, load(folder).unet)
    assert set(prompts) == ({"lora"} if about["kept_step"] else set())
    weights = read_prompts(run[0] / "prompts" / "weights-10" / "seed-0", load(folder).unet)
    assert set(weights["weights"]) == set(WEIGHED)


def test_a_second_start_computes_nothing_and_says_where_the_report_is(
    workdir, folder, monkeypatch, capfd
):
    monkeypatch.setattr(
        "dsd_jax.experiment.setup.load_experiment", lambda *_: pytest.fail("computing again")
    )
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    train.main(options(folder, workdir))
    (line,) = capfd.readouterr().err.splitlines()
    assert "finished: its report is " in line and str(workdir / "report.html") in line
    assert {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()} == before


def test_a_deleted_report_is_made_again_without_learning(workdir, folder, report, monkeypatch):
    monkeypatch.setattr(sweep, "train_prompts", lambda *_, **__: pytest.fail("learning again"))
    metrics = (workdir / "metrics.jsonl").read_text()
    (workdir / "report.json").unlink()
    train.main(options(folder, workdir))
    again = json.loads((workdir / "report.json").read_text())
    assert again["results"] == report["results"]
    assert again["comparisons"] == report["comparisons"]
    assert (workdir / "metrics.jsonl").read_text() == metrics


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("learn.lora.learning_rate=0.1", "with learn.lora.learning_rate = 0.05, this one has 0.1"),
        ("timesteps=3", "with timesteps = 2, this one has 3"),
        ("shots_from=seen-artists/shots", "with shots_from = 'unseen-artist/shots', this one has"),
    ],
)
def test_other_settings_need_another_workdir(workdir, folder, other, message):
    before = {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match=f"holds a run {message}.*; name another --workdir"):
        train.main(options(folder, workdir, f"--config.{other}"))
    assert {file: file.read_bytes() for file in workdir.rglob("*") if file.is_file()} == before


def test_prompts_of_other_weights_need_another_workdir(workdir, folder):
    place = workdir / "prompts" / "lora-10" / "seed-0" / "prompts.json"
    about = json.loads(place.read_text())
    place.write_text(json.dumps(about | {"weights_digest": "0" * 64}))
    (workdir / "report.json").unlink()
    with pytest.raises(UserError, match="lora-10/seed-0 was learned with weights_digest = '000"):
        train.main(options(folder, workdir))


def test_prompts_that_were_cut_short_are_learned_again(workdir, folder, monkeypatch):
    """A run may be killed between the first file of a prompts folder and the last."""
    place, calls = workdir / "prompts" / "lora-10" / "seed-1", []

    def learn(*args, **kwargs):
        calls.append(kwargs["options"].name)
        return TrainedPrompts({}, {0: 1.0}, 0)

    monkeypatch.setattr(sweep, "train_prompts", learn)
    monkeypatch.setattr("dsd_jax.experiment.evaluation.evaluate", lambda *_, **__: None)
    (place / "prompts.json").unlink()
    (workdir / "report.html").unlink()
    train.main(options(folder, workdir))
    assert calls == ["lora-10-1"]
    assert read_metadata(place).kept_step == 0


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("layers=mid", "layer 'mid' is unknown; expected 'all' or some of down_blocks.0"),
        ("splits=unseen-artist", "'unseen-artist' is unknown; expected seen-artists/shots"),
        ("shots_from=shots", "shots_from: 'shots' is unknown; expected seen-artists/shots"),
        ("shots=21", "shots is 21; expected 2 to 20"),
        ("learn.lora.steps=0", "=0: learn.lora.steps is 0, expected 1 or more."),
        ("weights=nowhere", "nowhere"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(
    folder, tmp_path, mistake, message, capfd, monkeypatch
):
    """Mistakes are found before a model is loaded and before anything is written."""
    if not mistake.startswith("weights"):
        monkeypatch.setattr(
            "dsd_jax.experiment.setup.load", lambda *_: pytest.fail("loading a model")
        )
    with pytest.raises(SystemExit) as stopped:
        run_command(train.main, options(folder, tmp_path, f"--config.{mistake}"))
    assert stopped.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not (tmp_path / "prompts").exists() and not (tmp_path / "config.json").exists()
