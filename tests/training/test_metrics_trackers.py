"""Trackers get what the log gets, and never end a run."""

import json
import sys
import types

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from dsd_jax.errors import UserError
from dsd_jax.training.loop import LoopOptions, fit
from dsd_jax.training.metrics_trackers import check_tracker


def train(folder, steps=4, **options):
    """Counts; the loss of a step is 1 / its number."""
    settings = LoopOptions("toy", None, folder / "metrics.jsonl", log_every=2, **options)
    return fit(
        0.0,
        lambda state, batch: (state + 1, {"loss": 1 / (state + 1)}),
        lambda step: step,
        steps,
        options=settings,
        check=lambda done, state: (state, False, done / 10),
        check_every=2,
    )


@pytest.fixture
def module(monkeypatch):
    """Puts a package in the place of wandb and trackio that writes down what it is told."""
    calls = []

    def start(project=None, **options):
        calls.append((project, options))
        return run

    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((step, values)), finish=lambda: calls.append("end")
    )
    fake = types.SimpleNamespace(init=start, Settings=dict, calls=calls, run=run)
    for name in ("wandb", "trackio"):
        monkeypatch.setitem(sys.modules, name, fake)
    return fake


def test_tensorboard_has_the_curves_of_the_log(tmp_path):
    train(tmp_path, tracker="tensorboard")
    events = EventAccumulator(str(tmp_path / "tensorboard" / "toy")).Reload()
    tags = events.Tags()["tensors"]
    assert set(tags) == {"loss", "held_out"}
    shown = {e.step: float(e.tensor_proto.float_val[0]) for e in events.Tensors("loss")}
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert shown == pytest.approx({line["step"]: line["loss"] for line in lines})
    assert [event.step for event in events.Tensors("held_out")] == [2, 4]


@pytest.mark.parametrize("kind", ["wandb", "trackio"])
def test_other_trackers_get_the_same(tmp_path, module, kind):
    train(tmp_path, tracker=kind)
    (project, options), *steps, end = module.calls
    assert project == "dsd_jax" and options["group"] == tmp_path.name and end == "end"
    assert steps == [
        (2, {"held_out": 0.2}),
        (2, {"loss": 0.5}),
        (4, {"held_out": 0.4}),
        (4, {"loss": 0.25}),
    ]
    first = options
    module.calls.clear()
    train(tmp_path, tracker=kind)  # as a run that is resumed: it goes on in the same curves
    assert module.calls[0][1] == first


@pytest.mark.parametrize("fails", ["init", "log", "finish"])
def test_a_tracker_that_fails_ends_no_run(tmp_path, module, monkeypatch, fails, recwarn):
    def fail(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(module if fails == "init" else module.run, fails, fail)
    assert train(tmp_path, tracker="wandb") == 4
    said = [str(warning.message) for warning in recwarn]
    sentence = "wandb takes no metrics (no network); the run goes on, and its metrics.jsonl has "
    assert said == ([] if fails == "finish" else [f"{sentence}them all."])
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_a_missing_package_is_one_sentence(monkeypatch):
    check_tracker("")
    check_tracker("tensorboard")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="tracker=wandb needs the package wandb; install it: pip "):
        check_tracker("wandb")
