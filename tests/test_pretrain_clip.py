"""Training a CLIP from end to end, as small as it goes; stopped and resumed, it is the same."""

import json
import signal

import numpy as np
import pytest

from dsd_jax import pretrain
from dsd_jax.clip.clip_files import load_clip
from dsd_jax.errors import Preempted, UserError
from dsd_jax.pretraining import clip_phase

SETTINGS = {
    "cpu_devices": -1,  # as many as this process has
    "text.hidden_size": 8,
    "text.layers": 1,
    "text.heads": 2,
    "vision.hidden_size": 8,
    "vision.layers": 1,
    "vision.heads": 2,
    "vision.patch_size": 16,
    "projection": 4,
    "contrast.steps": 4,
    "contrast.batch": 8,
    "contrast.pool": 256,
    "contrast.passes": 1,
}


def run(workdir, **changes):
    overrides = [f"--config.{name}={value}" for name, value in (SETTINGS | changes).items()]
    pretrain.main(["--config=configs/pretrain_clip.py", f"--workdir={workdir}", *overrides])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """That of a run which nothing stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "pretrain"
    run(workdir)
    return workdir


def test_the_clip_it_writes_loads_and_scores(workdir):
    clip = load_clip(workdir / "model")
    assert clip.image_size == 64 and clip.config.text.projection == 4
    pixels = np.random.default_rng(0).integers(0, 256, (1, 2, 64, 64, 3), np.uint8)
    scores = clip.item_scores(pixels, [["a cat", "a dog", "a fish"]])
    assert scores.shape == (1, 2, 3) and np.isfinite(scores).all()


def test_log(workdir):
    (line,) = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    assert (line["phase"], line["step"]) == ("clip", 4) and {"loss", "found", "scale"} < set(line)


def test_stopped_and_resumed_is_the_same_model(workdir, tmp_path, monkeypatch):
    original = clip_phase.batch

    def batch(*args):
        if args[-1] == 2:
            signal.raise_signal(signal.SIGTERM)
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(clip_phase, "batch", batch)
        with pytest.raises(Preempted, match="clip: stopped at step 2"):
            run(tmp_path)
    run(tmp_path)
    for file in (workdir / "model").iterdir():
        assert (tmp_path / "model" / file.name).read_bytes() == file.read_bytes(), file.name


def test_another_runs_workdir_is_refused(workdir):
    with pytest.raises(UserError, match=r"a run with vision.layers = 1, this one has 2"):
        run(workdir, **{"vision.layers": 2})


def test_a_model_that_we_do_not_train(tmp_path):
    with pytest.raises(UserError, match="model is 'gan', expected one of stable-diffusion, clip"):
        run(tmp_path, model="gan")
