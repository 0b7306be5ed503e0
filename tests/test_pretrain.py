"""Pre-training from end to end, as small as it goes; stopped and resumed, it is the same."""

import json
import shutil
import signal

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

import dsd_jax
from dsd_jax import pretrain
from dsd_jax.errors import Preempted, UserError
from dsd_jax.pretraining import autoencoder_phase, denoiser_phase
from dsd_jax.pretraining.scene_batches import SceneStream
from tests.few_shots import quick_compilation

SETTINGS = {
    "cpu_devices": -1,  # as many as this process has
    "vae.block_out_channels": "4,4,4,8",
    "vae.latent_channels": 4,
    "vae.norm_num_groups": 4,
    "vae.encoder_steps": 2,
    "vae.steps": 4,
    "vae.batch": 4,
    "text.hidden_size": 8,
    "text.layers": 1,
    "text.heads": 2,
    "text.steps": 4,
    "text.batch": 4,
    "unet.block_out_channels": "8,8",
    "unet.heads": 2,
    "unet.norm_num_groups": 4,
    "denoiser.steps": 4,
    "denoiser.batch": 4,
    "denoiser.pool": 256,
    "denoiser.passes": 1,
}
SAMPLE = 128  # pictures that stand for the 2048 by which latents are whitened


@pytest.fixture(scope="module", autouse=True)
def compiled_once(tmp_path_factory):
    """Each run is a new process to JAX, which would compile everything anew."""
    names = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in names}
    for name, value in names.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    with quick_compilation():
        yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def small_sample():
    def batch(self, key, count, original=SceneStream.batch):
        return original(self, key, SAMPLE if count == 2048 else count)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SceneStream, "batch", batch)
        yield


def run(workdir, **changes):
    overrides = [f"--config.{name}={value}" for name, value in (SETTINGS | changes).items()]
    pretrain.main(["--config=configs/pretrain_tiny.py", f"--workdir={workdir}", *overrides])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """That of a run which nothing stopped."""
    workdir = tmp_path_factory.mktemp("runs") / "pretrain"
    run(workdir)
    return workdir


def test_the_model_it_writes_loads_and_scores(workdir):
    model = dsd_jax.load(workdir / "model")
    assert model.image_size == 64 and model.latent_shape == (8, 8, 4)
    assert model.vae.scaling_factor == 1.0
    pictures = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    scores = dsd_jax.match_scores(model, pictures, ["a cat"], timesteps=1)
    assert scores.shape == (1, 1) and np.isfinite(scores).all()


def test_log(workdir):
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [
        *(("encoder", 2), ("vae", 4), ("text", 4), ("denoiser", 4))
    ]
    assert {"loss", "linear_psnr"} <= set(lines[0]) and "psnr" in lines[1]


def sigterm_at(monkeypatch, module, step):
    """SIGTERM during that step of that phase."""
    original = module.batch

    def batch(*args):
        if args[-1] == step:
            signal.raise_signal(signal.SIGTERM)
        return original(*args)

    monkeypatch.setattr(module, "batch", batch)


def test_stopped_twice_and_resumed_is_the_same_model(workdir, tmp_path):
    stops = [
        (autoencoder_phase, 1, "encoder"),
        (autoencoder_phase, 3, "vae"),
        (denoiser_phase, 2, "denoiser"),
    ]
    for module, step, name in stops:
        with pytest.MonkeyPatch.context() as patch:
            sigterm_at(patch, module, step)
            with pytest.raises(Preempted, match=f"{name}: stopped at step {step}"):
                run(tmp_path)
    run(tmp_path)
    files = sorted(file.relative_to(workdir) for file in (workdir / "model").rglob("*.*"))
    assert len([file for file in files if file.suffix == ".safetensors"]) == 3
    for file in files:
        assert (tmp_path / file).read_bytes() == (workdir / file).read_bytes(), file


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vae.learning_rate", 0.1, "a run with learning_rate = 0.002, this one has 0.1"),
        ("denoiser.batch", 8, "a run with denoiser.batch = 4, this one has 8"),
    ],
)
def test_another_runs_workdir_is_refused(workdir, field, value, message):
    with pytest.raises(UserError, match=message):
        run(workdir, **{field: value})


class Caught(Exception):
    """Raised in place of a batch, with the number of its step."""


def test_a_longer_run_goes_on_where_a_shorter_one_ended(workdir, tmp_path, monkeypatch):
    """As when the bundled model is trained further."""

    def batch(*args):
        raise Caught(args[-1])

    monkeypatch.setattr(denoiser_phase, "batch", batch)
    shutil.copytree(workdir, tmp_path / "run")
    with pytest.raises(Caught, match="4"):
        run(tmp_path / "run", **{"denoiser.steps": 6})


def test_going_on_from_a_model_keeps_its_vae(workdir, tmp_path):
    start = workdir / "model"
    run(tmp_path, start=start)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [("text", 4), ("denoiser", 4)]
    before, after = dsd_jax.load(start), dsd_jax.load(tmp_path / "model")
    jax.tree.map(np.testing.assert_array_equal, before.params["vae"], after.params["vae"])
    moved = jax.tree.map(
        lambda a, b: np.abs(a - b).max(), *(m.params["unet"] for m in (before, after))
    )
    assert 0 < max(jax.tree.leaves(moved)) < 0.1  # went on from there


def test_a_start_of_another_shape_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--config.start=tiny: its unet is UNetConfig.*but this"):
        run(tmp_path, start="tiny")
