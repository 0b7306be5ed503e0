"""Progress: bars in terminals, lines in logs, and never a word that is not true."""

import re
import sys
import threading
import time

import jax
import jax.numpy as jnp
import pytest

from dsd_jax.io import progress
from dsd_jax.io.progress import UNSEEN, Stage, Work, duration, stages_hidden, stages_shown_by
from dsd_jax.io.terminal import tell
from tests.silence import longest_silence


@pytest.fixture
def quick(monkeypatch):
    """Show a stage at once, and often."""
    monkeypatch.setattr(progress, "BAR_SECONDS", 0.02)
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.02)
    monkeypatch.setattr(progress, "SHORT_SECONDS", 0.0)
    monkeypatch.setattr(progress, "_NOTED_SECONDS", 0.05)


def test_times_are_words():
    assert [duration(x) for x in (0.4, 59.4, 60, 125, 3600, 4350)] == [
        *("0 s", "59 s", "1 min 00 s", "2 min 05 s", "1 h 00 min", "1 h 12 min")
    ]


def test_a_log_gets_lines_with_share_and_end(quick, capfd):
    with Stage("scoring", 4) as stage:
        stage.advance(3)
        stage.status = "loss 0.5"
        time.sleep(0.1)
    first, *_, last = capfd.readouterr().err.splitlines()
    assert first == "scoring: 75 % after 0 s; loss 0.5"
    assert last == "scoring: done in 0 s; loss 0.5"


def test_another_window_is_told_instead_of_the_terminal(quick, capfd):
    told = []
    with stages_shown_by(lambda stage: told.append((stage.name, stage.share))):
        with Stage("scoring", 4) as stage:
            stage.advance(3)
            time.sleep(0.1)
            stage.advance()
        with Stage("hidden", 1, shown=False):
            time.sleep(0.1)
    assert told[0] == ("scoring", 0.75) and told[-1] == ("scoring", 1.0)
    assert capfd.readouterr() == ("", "")
    with Stage("later", 1):
        time.sleep(0.1)
    assert "later" in capfd.readouterr().err


def test_what_is_short_or_hidden_is_silent(capfd):
    with Stage("short", 4) as stage:
        stage.advance(4)
    with Stage("hidden", shown=False) as stage, stage.waiting_for("nobody"):
        time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("hidden", [True, False])
def test_all_stages_of_a_quiet_run_are_silent(quick, capfd, hidden):
    with stages_hidden(hidden), Stage("preparing", 4):
        time.sleep(0.1)
    assert ("preparing" in capfd.readouterr().err) is not hidden


def test_time_left_is_that_of_the_work_without_compilations(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    with Stage("scoring", 10, shown=False, done=2) as stage:
        assert stage.left is None
        stage.on_compilation_start("/jax/core/compile/backend_compile_duration", 0.0)
        clock[0] = 100.0
        stage.on_compilation_end("/jax/core/compile/backend_compile_duration", 0.0)
        clock[0] = 104.0
        assert stage.left is None  # nothing is finished yet
        stage.advance(2)
        assert stage.left == pytest.approx(12.0)  # 2 s each for 6 more
        stage.reach(10)
        assert stage.left == 0


def test_a_compilation_is_named_while_it_goes_on(quick, capfd):
    def long_to_compile(x):
        for i in range(200):
            x = jnp.sin(x @ x) + i
        return x

    with Stage("scoring", 1) as stage, stage.waiting_for("the UNet for 60 rows"):
        jax.jit(long_to_compile).lower(jnp.ones((9, 9))).compile()
    assert "; compiling the UNet for 60 rows " in capfd.readouterr().err
    assert stage.note == ""  # it has ended


def test_compilations_of_other_threads_are_not_ours():
    with Stage("scoring", 1, shown=False) as stage:
        event = "/jax/core/compile/backend_compile_duration"
        thread = threading.Thread(target=stage.on_compilation_start, args=(event, 0.0))
        thread.start()
        thread.join()
        stage._waits.clear()
        assert stage.note == ""
        assert not stage._compilations


def test_parts_of_work_add_up():
    with Stage("scoring", 8, shown=False) as stage:
        half = Work(stage, 8).part(0.5)
        for _ in range(4):
            half.part(0.25).advance(1.0)
        assert stage.share == 0.5
        Work(stage, 8).part(0).advance(100)  # of no weight
        assert stage.share == 0.5
    UNSEEN.part(0.5).advance(1.0)
    UNSEEN.finish(None)
    with UNSEEN.waiting_for("nothing"):
        pass


def test_an_error_is_not_called_done_and_ends_the_thread(quick, capfd):
    with pytest.raises(OSError, match="disk"), Stage("scoring", 4):
        time.sleep(0.1)
        raise OSError("disk")
    assert "done" not in capfd.readouterr().err
    assert not [x for x in threading.enumerate() if x.name == "progress"]


def test_a_closed_stderr_is_no_reason_to_end(quick, monkeypatch, tmp_path):
    with open(tmp_path / "log", "w") as closed:
        pass
    for stderr in (closed, None):
        monkeypatch.setattr(sys, "stderr", stderr)
        with Stage("scoring", 4) as stage:
            stage.advance(4)
            time.sleep(0.1)
        assert stage.share == 1


SCRIPT = """
import time
from dsd_jax.io.progress import Stage
from dsd_jax.io.terminal import tell
with Stage("scoring", 10) as stage:
    for i in range(10):
        stage.advance()
        time.sleep(0.3)
        if i == 5: tell("warning", "look")
with Stage("a short one", 10) as stage:
    time.sleep(0.8)
"""


def test_a_terminal_gets_one_bar_and_whole_lines_above_it():
    found = longest_silence([sys.executable, "-c", SCRIPT], terminal=True)
    assert found.code == 0, found.output
    drawn = re.split(r"[\r\n]+", found.output)
    assert any(re.fullmatch(r"scoring:  [4-9]0%\|.* 2 s, \d s left *", x) for x in drawn), drawn
    assert "warning: look" in drawn  # on a line of its own
    assert max(map(len, drawn)) <= 80
    kept = [line.split("\r")[-1] for line in found.output.split("\r\n")]
    assert [line for line in kept if line.strip(" \x1b[A")][-1].startswith("scoring: 100%|")


def test_a_message_is_a_line_without_bars_too(capfd):
    tell("warning", "two\nlines")
    assert capfd.readouterr().err == "warning: two lines\n"
