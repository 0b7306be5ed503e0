"""A workdir in a bucket: what it holds is what one on a disk holds, whatever stops a run."""

import gc
import json
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from dsd_jax.errors import Preempted, UserError
from dsd_jax.io.storage import make_folder, make_local_folder, write_file
from dsd_jax.prompts.prompt_files import is_complete, read_metadata, read_prompts, write_prompts
from dsd_jax.prompts.prompt_params import init_tokens
from dsd_jax.report import report_files
from dsd_jax.training import metrics_log
from dsd_jax.training.checkpoints import Checkpoints
from dsd_jax.training.loop import LoopOptions, fit
from dsd_jax.training.metrics_log import MetricsLog
from tests.buckets import bucket
from tests.prompts.test_prompt_files import ABOUT
from tests.random_model import random_model
from tests.report.test_report_files import HEADER, ROWS

pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def address():
    with bucket() as address:
        yield address
    gc.collect()


@pytest.fixture
def folder(address, request):
    return epath.Path(address) / request.node.name


def names(folder) -> list[str]:
    return sorted(place.name for place in folder.iterdir())


def test_folder_is_made_and_left_empty(folder):
    assert make_folder(str(folder), "--workdir") == folder
    assert not folder.exists()


def test_a_bucket_that_is_not_there(address):
    with pytest.raises(
        UserError, match=r"--workdir=gs://none/run cannot be written to \(.*; log in"
    ):
        make_folder("gs://none/run", "--workdir")


def test_without_gcsfs(monkeypatch):
    def fs(path):
        raise ImportError("Please install gcsfs to access Google Storage")

    monkeypatch.setattr(epath.backend.fsspec_backend, "fs", fs)
    with pytest.raises(UserError, match=r"gs:// needs the package gcsfs; pip install gcsfs, or"):
        make_folder("gs://bucket/run", "--workdir")


def test_what_knows_no_addresses_says_so():
    with pytest.raises(UserError, match="--heatmaps=gs:/b/x: addresses are not understood here"):
        make_local_folder("gs:/b/x", "--heatmaps")


def test_files(folder):
    write_file(folder / "config.json", "{}")
    write_file(folder / "config.json", '{"ä": 1}')
    assert (folder / "config.json").read_text() == '{"ä": 1}'
    assert names(folder) == ["config.json"]


def test_report(folder):
    for name, content in report_files(HEADER, ROWS).items():
        write_file(folder / name, content)
    assert names(folder) == ["report.html", "report.json", "report.md"]


def test_prompts(folder):
    unet = random_model().unet
    tree = {"tokens": init_tokens(unet, jax.random.key(1), count=2)}
    with pytest.raises(UserError, match="holds no prompts: prompts.safetensors is missing"):
        read_prompts(str(folder), unet)
    assert not is_complete(folder)
    write_prompts(folder, tree, ABOUT)
    assert is_complete(folder) and read_metadata(str(folder)).stated() == ABOUT
    jax.tree.map(np.testing.assert_array_equal, read_prompts(str(folder), unet), tree)


def test_log_waits_for_flush_or_half_a_minute(folder, monkeypatch):
    file = folder / "metrics.jsonl"
    with MetricsLog(file) as log:
        log.write({"step": 1})
        assert not file.exists()
        log.flush()
        log.write({"step": 2})
        monkeypatch.setattr(metrics_log, "_SECONDS_BETWEEN_UPLOADS", 0.0)
        log.write({"step": 3})
        assert len(file.read_text().splitlines()) == 3
    with MetricsLog(file) as log:  # a resumed run
        log.write({"step": 4})
    assert [json.loads(line)["step"] for line in file.read_text().splitlines()] == [1, 2, 3, 4]


def learn(folder, stop: int | None = None):
    """Seven steps whose order matters; SIGTERM arrives while the batch of step `stop` is made."""

    def batch(step: int) -> np.ndarray:
        if step == stop:
            signal.raise_signal(signal.SIGTERM)
        return np.random.default_rng(step).normal(size=3)

    def update(state, batch):
        x = jnp.asarray(0.9 * state["x"] + batch)
        return {"x": x}, {"loss": x.sum()}

    with Checkpoints(folder / "checkpoints", {}) as checkpoints:
        options = LoopOptions(
            "toy",
            checkpoints,
            folder / "metrics.jsonl",
            save_seconds=0,
            log_every=1,
            progress=False,
        )
        return fit({"x": jnp.zeros(3)}, update, batch, 7, options=options)


def test_stopped_and_resumed_is_the_same(folder, tmp_path):
    expected = learn(tmp_path)["x"]
    with pytest.raises(Preempted, match="stopped at step 3; resume with the same command"):
        learn(folder, stop=3)
    np.testing.assert_array_equal(learn(folder)["x"], expected)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 8))
    assert names(folder / "checkpoints") == ["6", "7"]


def test_the_log_is_uploaded_before_a_checkpoint(folder, monkeypatch):
    """So that a kill, after which nothing is written, loses only lines of steps that are redone."""
    monkeypatch.setattr(MetricsLog, "__exit__", lambda *_: None)
    learn(folder)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 8))


def test_many_arrays(folder):
    """Whose index TensorStore reads again and again."""
    rng = np.random.default_rng(0)
    tree = {str(i): jnp.asarray(rng.normal(size=(8, 2 + i))) for i in range(40)}
    with Checkpoints(folder, {}) as checkpoints:
        checkpoints.save(1, tree)
    with Checkpoints(folder, {}) as checkpoints:
        step, found = checkpoints.restore(jax.tree.map(jnp.zeros_like, tree))
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, found, tree)


def test_damage_is_passed_over_and_set_aside(folder, capfd):
    learn(folder)
    content = (folder / "checkpoints" / "7" / "state" / "manifest.ocdbt").read_bytes()
    (folder / "checkpoints" / "7" / "state" / "manifest.ocdbt").write_bytes(content[:50])
    (folder / "checkpoints" / "9" / "state" / "d").mkdir(parents=True)
    (folder / "checkpoints" / "9" / "state" / "d" / "part").write_bytes(b"killed while saving")
    learn(folder)
    told = [line for line in capfd.readouterr().err.splitlines() if line.startswith("checkpoint ")]
    assert [line.split(":")[-1] for line in told][0] == " its save was killed"
    assert [line.split()[1] for line in told] == ["9", "7"]
    kept = [name.split("-")[0] for name in names(folder / "checkpoints")]
    assert kept == ["6", "7", "damaged"]
    capfd.readouterr()
    learn(folder)
    assert "checkpoint " not in capfd.readouterr().err
