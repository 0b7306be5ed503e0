"""The training loop: an interrupted and resumed run equals one that was never interrupted."""

import gc
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

from dsd_jax.errors import UserError
from dsd_jax.io import progress
from dsd_jax.training import loop
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions, Preempted, fit

STEPS = 7


def update(state, batch):
    """Update so that a step that is left out or done twice changes the result."""
    x = np.asarray(0.9 * state["x"] + batch)
    return {"x": x}, {"loss": x.sum()}


def numbers(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=3)


def run(checkpoints=None, log=None, batch=numbers, **options):
    start = {"x": np.zeros(3)}
    steps, used_update = options.pop("steps", STEPS), options.pop("update", update)
    names = {"save_seconds", "log_every", "progress"} & options.keys()
    shown = {"progress": False} | {name: options.pop(name) for name in names}
    settings = LoopOptions("toy", checkpoints, log, **shown)
    return fit(start, used_update, batch, steps, options=settings, **options)


@pytest.fixture(scope="module")
def expected():
    return run()["x"]


@pytest.fixture
def open_folder(tmp_path):
    """Return a function whose every call opens the folder as a new process does."""
    return lambda: Checkpoints(tmp_path / "checkpoints", {})


def sigterm_at(step: int):
    """Return a function of batches that raises SIGTERM when it is called for `step`."""

    def batch(number: int) -> np.ndarray:
        if number == step:
            signal.raise_signal(signal.SIGTERM)
        return numbers(number)

    return batch


def test_each_steps_batch_is_asked_for_once_and_in_order(expected):
    asked = []
    run(batch=lambda number: asked.append(number) or numbers(number))
    assert asked == list(range(STEPS))
    by_hand = np.zeros(3)
    for step in range(STEPS):
        by_hand = 0.9 * by_hand + numbers(step)
    np.testing.assert_array_equal(expected, by_hand)


@pytest.mark.parametrize("step", [1, 4])
def test_sigterm_saves_and_the_next_run_goes_on(open_folder, expected, step):
    before = signal.getsignal(signal.SIGTERM)
    with (
        open_folder() as checkpoints,
        pytest.raises(Preempted, match=f"toy: stopped at step {step}; resume with the same"),
    ):
        run(checkpoints, batch=sigterm_at(step))
    assert signal.getsignal(signal.SIGTERM) is before
    asked = []
    with open_folder() as checkpoints:
        found = run(checkpoints, batch=lambda number: asked.append(number) or numbers(number))
    np.testing.assert_array_equal(found["x"], expected)
    assert asked == list(range(step, STEPS))


COMPILING = """
import signal, time
import numpy as np
from dsd_jax.training.loop import LoopOptions, fit

def compile_for_minutes(state, batch):
    print("compiling", flush=True)
    time.sleep(60)

fit({"x": np.zeros(3)}, compile_for_minutes, lambda step: step, 7, options=LoopOptions("toy"))
"""


def test_sigterm_ends_the_first_compilation_at_once():
    command = [sys.executable, "-c", COMPILING]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"compiling\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM


def test_an_exception_costs_no_more_than_the_steps_since_the_last_checkpoint(open_folder, expected):
    def broken(number: int) -> np.ndarray:
        if number == 5:
            raise OSError("disk")
        return numbers(number)

    with open_folder() as checkpoints, pytest.raises(OSError, match="disk"):
        run(checkpoints, batch=broken, save_seconds=0)
    asked = []
    with open_folder() as checkpoints:
        found = run(checkpoints, batch=lambda number: asked.append(number) or numbers(number))
    np.testing.assert_array_equal(found["x"], expected)
    assert asked == [4, 5, 6]


def test_a_finished_run_does_nothing_more(open_folder, expected):
    for _ in range(2):
        with open_folder() as checkpoints:
            np.testing.assert_array_equal(run(checkpoints)["x"], expected)
    with open_folder() as checkpoints:
        found = run(checkpoints, batch=lambda number: pytest.fail("a batch was asked for"))
    np.testing.assert_array_equal(found["x"], expected)


def test_two_phases_in_one_folder(open_folder, expected):
    """The second goes on where the first one, perhaps still being saved, ended."""
    with open_folder() as checkpoints:
        run(checkpoints, steps=3)
        asked = []
        found = run(checkpoints, batch=lambda number: asked.append(number) or numbers(number))
    np.testing.assert_array_equal(found["x"], expected)
    assert asked == list(range(3, STEPS))


# After an error in one file Orbax leaves the reading of others unfinished, and Python says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_costs_steps_and_nothing_else(open_folder, expected, tmp_path):
    with open_folder() as checkpoints:
        run(checkpoints, save_seconds=0)
    for file in (tmp_path / "checkpoints" / str(STEPS)).rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with open_folder() as checkpoints:
        np.testing.assert_array_equal(run(checkpoints)["x"], expected)
    with open_folder() as checkpoints:
        found = run(checkpoints, batch=lambda number: pytest.fail("a batch was asked for"))
    np.testing.assert_array_equal(found["x"], expected)
    gc.collect()


def test_log(tmp_path):
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"of": "an earlier run"}\n')
    run(log=log, log_every=3)
    lines = [json.loads(line) for line in log.read_text().splitlines()][1:]
    assert [(line["phase"], line["step"]) for line in lines] == [("toy", n) for n in (3, 6, 7)]
    assert all(set(line) == {"phase", "step", "time", "loss"} for line in lines)
    np.testing.assert_allclose(lines[-1]["loss"], run()["x"].sum())


def test_progress_is_shown_if_wanted(capfd, monkeypatch):
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.01)
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0.0)

    def slow(state, batch):
        time.sleep(0.02)
        return update(state, batch)

    run(update=slow)
    assert capfd.readouterr() == ("", "")
    run(update=slow, progress=True)
    first, *_, last = capfd.readouterr().err.splitlines()
    assert first.startswith("toy: ") and "% after 0 s" in first
    loss = float(run()["x"].sum())
    assert last == f"toy: done in 0 s; step {STEPS} of {STEPS}, loss {loss:.4g}"


def looks(stop_at: int | None, seen: list):
    def check(done, state):
        seen.append(done)
        return {"x": state["x"] + 1}, done == stop_at, None

    return check


def test_checks_may_change_the_state_and_end_the_run():
    seen = []
    run(check=looks(None, seen), check_every=3)
    assert seen == [3, 6, 7]
    seen.clear()
    found = run(check=looks(6, seen), check_every=3)
    assert seen == [3, 6]
    by_hand = np.zeros(3)
    for step in range(6):
        by_hand = 0.9 * by_hand + numbers(step) + (step in (2, 5))
    np.testing.assert_array_equal(found["x"], by_hand)


def test_a_run_that_was_ended_early_stays_ended(open_folder):
    def check(done, state):
        return state, done >= 4, None

    with open_folder() as checkpoints:
        expected = run(checkpoints, check=check, check_every=2)
    with open_folder() as checkpoints:
        found = run(checkpoints, check=check, check_every=2)
    np.testing.assert_array_equal(found["x"], expected["x"])


def test_the_state_of_the_best_check_is_kept(open_folder, tmp_path):
    """Saved at once where a tenth of the time between checkpoints has passed, and never lost."""
    metrics = {1: 3.0, 2: 1.0, 3: 2.0, 4: 2.5, 5: 1.5, 6: 4.0, 7: 5.0}
    with open_folder() as checkpoints:
        run(checkpoints, check=lambda done, state: (state, False, metrics[done]), save_seconds=0,
            batch_size=4)  # fmt: skip
        assert checkpoints.best == 1.0
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["2", "6", "7"]
    meta = json.loads((tmp_path / "checkpoints" / "2" / "meta" / "metadata").read_text())
    assert meta["metric"] == 1.0 and meta["data"] == {"next_batch": 2, "examples": 8}


def test_a_better_check_is_saved_early(open_folder, monkeypatch):
    metrics = {1: 3.0, 2: 4.0, 3: 2.0, 4: 5.0, 5: 6.0, 6: 7.0, 7: 8.0}
    waits = []

    def is_time_to_save(done, saved, seconds):
        waits.append(seconds)
        return seconds < 95

    monkeypatch.setattr(loop, "is_time_to_save", is_time_to_save)
    with open_folder() as checkpoints:
        run(checkpoints, check=lambda done, state: (state, False, metrics[done]), save_seconds=95)
    assert waits == [9.5, 95, 9.5, 95, 95, 95]


def test_sigterm_when_a_check_ends_the_run_is_not_forgotten(open_folder):
    def check(done, state):
        return state, done == 4, None

    with open_folder() as checkpoints, pytest.raises(Preempted, match="stopped at step 4"):
        run(checkpoints, batch=sigterm_at(4), check=check)
    with open_folder() as checkpoints:
        assert checkpoints.restore({"x": np.zeros(3)})[0] == 4


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    message = r"metrics.jsonl cannot be written \(Is a directory\); make room or allow it, then run"
    with pytest.raises(UserError, match=message):
        run(log=tmp_path / "metrics.jsonl")


def broken_at(step: int):
    def update_to_nan(state, batch):
        state, metrics = update(state, batch)
        x = state["x"] * (np.nan if np.array_equal(batch, numbers(step)) else 1)
        return {"x": x}, {"loss": x.sum()}

    return update_to_nan


@pytest.mark.parametrize("log_every", [1, 50])
def test_a_loss_that_is_no_number_is_said_and_never_saved(open_folder, expected, log_every):
    message = r"toy: the loss is not a number at step \d; lower the learning rate"
    with open_folder() as checkpoints, pytest.raises(UserError, match=message):
        run(checkpoints, update=broken_at(4), log_every=log_every, save_seconds=0)
    with open_folder() as checkpoints:
        found = run(checkpoints)
    np.testing.assert_array_equal(found["x"], expected)


def exploding_at(step: int):
    """Return an update whose gradients are NaN at a step, although its loss is finite."""

    def update(state, batch):
        x = jnp.asarray(0.9 * state["x"] + batch)
        explodes = np.array_equal(batch, numbers(step))
        return {"x": x * np.nan if explodes else x}, {"loss": np.float32(1.5)}

    return update


def test_a_state_that_is_not_finite_is_never_saved_whatever_the_loss(open_folder):
    start = {"x": jnp.zeros(3)}
    message = "toy: what is trained is no longer finite at step 5; .* goes on from step 4[.]"
    with open_folder() as checkpoints, pytest.raises(UserError, match=message):
        options = LoopOptions("toy", checkpoints, progress=False, save_seconds=0)
        fit(start, exploding_at(4), numbers, STEPS, options=options)
    asked, sound = [], exploding_at(STEPS)
    with open_folder() as checkpoints:  # the message is true
        options = LoopOptions("toy", checkpoints, progress=False)
        found = fit(
            start, sound, lambda step: asked.append(step) or numbers(step), STEPS, options=options
        )
    assert asked == [4, 5, 6] and np.isfinite(found["x"]).all()


@pytest.mark.parametrize("step", [2, STEPS - 1])
def test_without_checkpoints_it_ends_as_loudly(step):
    message = "toy: (the loss is not a number|what is .*) at step 7; .* from the start, for there"
    with pytest.raises(UserError, match=message):
        options = LoopOptions("toy", progress=False)
        fit({"x": jnp.zeros(3)}, exploding_at(step), numbers, STEPS, options=options)


def test_a_number_that_is_none_does_not_reach_the_log(open_folder, tmp_path):
    log = tmp_path / "metrics.jsonl"
    with open_folder() as checkpoints, pytest.raises(UserError, match="goes on from step 4[.]"):
        run(checkpoints, log, update=broken_at(4), log_every=1, save_seconds=0)
    assert [json.loads(line)["step"] for line in log.read_text().splitlines()] == [1, 2, 3, 4]


def test_a_run_in_a_thread_of_a_server_is_one_without_signals(expected):
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(run).result(timeout=60)
    np.testing.assert_array_equal(result["x"], expected)
