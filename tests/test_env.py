"""`dsd-jax env` says what a bug may depend on, and where JAX fails, how."""

import json
import platform

import pytest

from dsd_jax import env
from dsd_jax.version import __version__


def test_it_names_versions_devices_and_folders(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DSD_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    env.main(["--json"])
    shown = capsys.readouterr().out
    facts = json.loads(shown)
    assert facts["dsd_jax"].startswith(f"{__version__} in ")
    assert platform.python_version() in facts["python"]
    assert " x cpu (cpu)" in facts["devices"]
    assert "jaxlib " in facts["packages"] and "numpy " in facts["packages"]
    assert facts["cache"].startswith(f"{tmp_path}/caches, ")
    assert f"DSD_CACHE={tmp_path}/caches" in facts["environment"] and "hf_secret" not in shown


@pytest.mark.parametrize(
    ("probe", "said"),
    [
        ("raise RuntimeError('no driver')", "JAX fails: RuntimeError: no driver"),
        ("import os; os.abort()", "JAX fails: exit code -6"),
        ("import time; time.sleep(60)", "JAX has not answered in 0.5 seconds"),
        ("import no_jax", "JAX fails: ModuleNotFoundError: No module named 'no_jax'"),
    ],
)
def test_it_works_where_jax_does_not(capsys, monkeypatch, probe, said):
    monkeypatch.setattr(env, "PROBE", probe)
    if "sleep" in probe:
        monkeypatch.setattr(env, "TIMEOUT", 0.5)
    env.main([])
    assert said in capsys.readouterr().out
