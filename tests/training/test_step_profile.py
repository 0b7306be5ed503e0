"""A profile of some steps is written, and what goes wrong with it ends no run."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.training.loop import LoopOptions, fit


def train(folder, profile, steps=6):
    update = jax.jit(lambda state, batch: (state + batch, {"loss": state.sum()}))
    options = LoopOptions("toy", None, folder / "metrics.jsonl", profile=profile)
    return fit(jnp.zeros(4), update, lambda step: jnp.ones(4), steps, options=options)


@pytest.fixture
def traced(monkeypatch):
    """Writes down when traces start and stop, instead of tracing."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


def test_xprof_finds_a_trace(tmp_path):
    # In a process of its own, as users trace: XLA's profiler can crash (jaxlib 0.10.1) in one that
    # has run hundreds of other programs before.
    code = f"""
from pathlib import Path
from tests.training.test_step_profile import train
train(Path({str(tmp_path)!r}), "2:3")
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
    assert list(tmp_path.glob("profile/toy/plugins/profile/*/*.xplane.pb"))
    assert not list(tmp_path.glob("tensorboard*"))


def test_it_is_stopped_once_wherever_the_training_ends(tmp_path, traced):
    for profile in ("0:1", "2:3", "5:9"):
        train(tmp_path, profile)
    assert traced == [str(tmp_path / "profile" / "toy"), "stop"] * 3


def test_what_goes_wrong_is_a_warning(tmp_path, traced, monkeypatch):
    with pytest.warns(UserWarning, match="no profile of .*toy is written .the training ended befo"):
        train(tmp_path, "7:1")
    train(tmp_path, "")

    def fail(folder):
        raise RuntimeError("only one profile may be run at a time")

    monkeypatch.setattr(jax.profiler, "start_trace", fail)
    with pytest.warns(UserWarning, match="is written .only one profile may be run at a time"):
        assert float(train(tmp_path, "2:3")[0]) == 6
