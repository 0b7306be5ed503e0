"""`train` and `evaluate` on two hosts: killed, resumed, and in the end one process's report."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from dsd_jax.clip.clip_files import save_clip
from dsd_jax.weights.model_saving import save
from tests.few_shots import few_model
from tests.pod.hosts import run, start
from tests.random_clip import random_clip

FIELDS = {
    "per_kind": 2,
    "methods": "attention,noise,dsd/compat",
    "timesteps": 2,
    "shots": 25,
    "recipes": "authors,weights",
    "learn.authors.methods": "attention",
    "learn.authors.learning_rate": 0.002,
    "learn.weights.methods": "noise",
    "tune.steps": 4,
    "tune.check_every": 2,
    "tune.batch": 4,
    "tune.learning_rate": 1e-2,
}


@pytest.fixture(scope="module")
def models(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save(few_model(), folder / "sd")
    save_clip(random_clip(), folder / "clip")
    return folder


def options(models: Path, workdir: Path, **fields: object) -> list[str]:
    fields = {**FIELDS, "weights": models / "sd", "clip": models / "clip", **fields}
    overrides = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["--config=configs/own.py:tiny", f"--workdir={workdir}", *overrides]


def report(workdir: Path) -> dict:
    return json.loads((workdir / "report.json").read_text())


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory) -> Path:
    """What one process writes."""
    workdir = tmp_path_factory.mktemp("alone")
    run(1, 1, "dsd_jax.train", *options(models, workdir))
    return workdir


@pytest.fixture(scope="module")
def together(models, tmp_path_factory) -> Path:
    """What two hosts write, both killed while they tuned the CLIP."""
    workdir = tmp_path_factory.mktemp("together")
    pod = start(2, 2, "tests.pod.saving_often", *options(models, workdir))
    while not (workdir / "checkpoints" / "clip-25-0" / "2").exists():
        assert pod.poll() is None, pod.communicate()
        time.sleep(0.02)
    os.killpg(pod.pid, signal.SIGKILL)
    pod.communicate()
    resumed = run(2, 2, "dsd_jax.train", *options(models, workdir))
    bars = resumed.stdout
    assert "learning authors-25" not in bars
    assert "on 25, seed 0: 50 % after" in bars and "on 25, seed 0: 0 % after" not in bars
    return workdir


def test_two_hosts_write_the_report_of_one(alone, together):
    expected, found = report(alone), report(together)
    assert {(row["method"], row["prompts"]) for row in found["results"]} == {
        *(("attention", None), ("noise", None), ("attention", "authors-25")),
        *(("noise", "weights-25"), ("dsd/compat", None), ("clip", None), ("clip", "tuned-25")),
    }
    for part in ("results", "comparisons", "passes"):
        assert found[part] == expected[part]
    assert not (together / "scores").exists()


def test_two_hosts_learn_what_one_learns(alone, together):
    for name in ("authors-25", "weights-25"):
        place = Path("prompts", name, "seed-0", "prompts.safetensors")
        expected, found = load_file(alone / place), load_file(together / place)
        assert expected.keys() == found.keys() and expected
        for key, values in expected.items():
            np.testing.assert_allclose(found[key], values, rtol=0, atol=1e-5)


def test_evaluate_on_two_hosts(models, together, tmp_path):
    prompts = together / "prompts" / "authors-25" / "seed-0"
    fields = {"methods": "attention", "clip": ""}
    run(2, 2, "dsd_jax.evaluate", *options(models, tmp_path, **fields), f"--prompts={prompts}")
    expected = [row for row in report(together)["results"] if row["method"] == "attention"]
    found = report(tmp_path)["results"]
    assert [row["value"] for row in found] == [row["value"] for row in expected]


@pytest.mark.parametrize(
    ("how", "code", "reasons"),
    [
        ("mistake", 2, ["failed with exit code 2", "the folder photos is missing."]),
        ("bug", 1, ["failed with exit code 1", "KeyError: 'no such layer'"]),
        ("killed", 137, ["process 1 was ended by SIGKILL"]),
        ("first-killed", 137, ["process 0 was ended by SIGKILL"]),
    ],
)
def test_a_host_that_fails_ends_all_with_its_reason(how, code, reasons):
    started = time.monotonic()
    pod = start(2, 1, "tests.pod.failing_host", how)
    out, error = pod.communicate(timeout=120)
    assert pod.returncode == code and time.monotonic() - started < 60
    last = error.splitlines()[-1]
    assert all(reason in last for reason in reasons), last
    assert "Traceback" not in out or how == "bug"
