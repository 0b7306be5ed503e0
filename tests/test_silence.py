"""No command is silent for more than ten seconds, not even the first time, when it compiles."""

import sys
from pathlib import Path

import pytest

from tests.silence import longest_silence

ROOT = Path(__file__).parents[1]
SECONDS = 10


def test_the_longest_silence_is_found():
    script = "import time; print(1, flush=True); time.sleep(2); print(2, flush=True); print(3)"
    for terminal in (False, True):
        found = longest_silence([sys.executable, "-c", script], terminal=terminal)
        assert 1.5 <= found.seconds < 9 and found.before.split() == ["1"]
        assert found.output.split() == ["1", "2", "3"] and found.code == 0


@pytest.mark.parametrize("terminal", [False, True], ids=["log", "terminal"])
def test_a_first_score_is_never_silent_for_long(tmp_path, terminal):
    command = [sys.executable, "-m", "dsd_jax.score", "--image", ROOT / "docs" / "cat-left.png"]
    command += ["--caption", "a cat to the left of an apple", "--caption", "an apple"]
    env = {"DSD_CACHE": str(tmp_path), "PYTHONPATH": str(ROOT)}
    found = longest_silence([*map(str, command), "--timesteps=1"], terminal=terminal, env=env)
    assert found.code == 0, found.output
    assert "score" in found.output and "tiny: Stable Diffusion" in found.output
    assert found.seconds <= SECONDS, found.before
