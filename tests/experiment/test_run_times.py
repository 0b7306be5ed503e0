"""How long a run took is told before the next one, and never keeps one from running."""

from types import SimpleNamespace

import pytest

from dsd_jax.experiment import run_plan
from dsd_jax.experiment.run_times import FOLDER, earlier_seconds, remember_seconds

SETTINGS = {"weights": "tiny", "seed": 0, "timesteps": 2, "learn": {"lora": {"rank": 4}}}


@pytest.fixture(autouse=True)
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("DSD_CACHE", str(tmp_path))
    return tmp_path


def test_the_same_job_is_found_again_with_another_seed():
    assert earlier_seconds("train", SETTINGS, "2 x cpu") is None
    remember_seconds("train", SETTINGS, "2 x cpu", 61.26)
    assert earlier_seconds("train", {**SETTINGS, "seed": 3}, "2 x cpu") == 61.3
    remember_seconds("train", SETTINGS, "2 x cpu", 50)
    assert earlier_seconds("train", SETTINGS, "2 x cpu") == 50


@pytest.mark.parametrize(
    ("command", "change", "device"),
    [
        ("evaluate", {}, "2 x cpu"),
        ("train", {"timesteps": 50}, "2 x cpu"),
        ("train", {"learn": {"lora": {"rank": 8}}}, "2 x cpu"),
        ("train", {}, "8 x TPU v5 lite"),
    ],
)
def test_another_job_is_not_taken_for_it(command, change, device):
    remember_seconds("train", SETTINGS, "2 x cpu", 60)
    assert earlier_seconds(command, {**SETTINGS, **change}, device) is None


@pytest.mark.parametrize("content", ["", "[]", '{"seconds": "long"}', '{"seconds": -1}', "{}"])
def test_a_damaged_file_is_no_time(caches, content):
    remember_seconds("train", SETTINGS, "2 x cpu", 60)
    (file,) = (caches / FOLDER).iterdir()
    file.write_text(content)
    assert earlier_seconds("train", SETTINGS, "2 x cpu") is None


def test_without_room_for_a_cache_a_run_goes_on(caches):
    (caches / FOLDER).write_text("in the way")
    remember_seconds("train", SETTINGS, "2 x cpu", 60)
    assert earlier_seconds("train", SETTINGS, "2 x cpu") is None


def test_the_banner_says_it():
    experiment = SimpleNamespace(
        workdir=SimpleNamespace(command="train", settings=SETTINGS), is_resumed=False
    )
    assert run_plan._time(experiment, "2 x cpu").startswith("not known before its first run here")
    experiment.is_resumed = True
    assert "it goes on from there" in run_plan._time(experiment, "2 x cpu")
    experiment.is_resumed = False
    remember_seconds("train", SETTINGS, "2 x cpu", 500)
    assert run_plan._time(experiment, "2 x cpu") == "about 8 min 20 s, as when it last ran here"
    experiment.is_resumed = True
    assert run_plan._time(experiment, "2 x cpu").endswith("last ran here; some of it is done")
