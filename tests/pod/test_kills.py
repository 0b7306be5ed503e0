"""The short form of `python -m tests.pod.kills --kills 20`."""

import pytest

from dsd_jax.errors import UserError
from tests.pod import kills


def test_a_killed_run_learns_the_same_to_the_bit(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "compiled"))
    kills.main(["--kills", "2", f"--folder={tmp_path / 'runs'}"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines[1:3]] == ["kill 1 of 2", "kill 2 of 2"]
    assert lines[-1] == "2 of 2 kills: bit-equal"


def test_a_folder_of_another_time_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is not empty; name a new one"):
        kills.main([f"--folder={tmp_path}"])
