"""A disk that takes no more: one sentence, and what was there before is still there, whole."""

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from dsd_jax.benchmarks.table_rows import RowKey
from dsd_jax.errors import UserError
from dsd_jax.experiment.score_cache import ScoreCache
from dsd_jax.experiment.workdir import REPORTS, open_workdir
from dsd_jax.io.storage import write_file
from dsd_jax.prompts.prompt_files import write_prompts
from dsd_jax.training.metrics_log import MetricsLog
from tests.experiment.test_workdir import content_of

MOST = 8192  # bytes of a file


@contextmanager
def full_disk() -> Iterator[None]:
    """Meanwhile files may not grow beyond `MOST`; a full disk takes a file system of its own."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def write_report(folder):
    with open_workdir(folder, "train", {"seed": 0}) as run:
        run.begin("{}")
        run.write_reports(dict.fromkeys(REPORTS, "x" * (2 * MOST)))


def write_scores(folder):
    scores = {RowKey("dsd"): np.zeros((MOST, 2, 1), np.float32)}
    ScoreCache(folder / "scores", "a run").load_or_compute("items", lambda: scores)


WRITES = {
    "a file": lambda folder: write_file(folder / "a.txt", b"x" * (2 * MOST)),
    "prompts": lambda folder: write_prompts(folder / "p", {"lora": {"x": np.zeros(MOST)}}, {}),
    "scores": write_scores,
    "reports": write_report,
}


@pytest.mark.parametrize("name", WRITES)
def test_one_sentence_and_nothing_half_written(tmp_path, name):
    (tmp_path / "a.txt").write_text("as it was")
    message = r"^\S+ cannot be written \(File too large\); make room or allow it, then run the same"
    with pytest.raises(UserError, match=message), full_disk():
        WRITES[name](tmp_path)
    assert (tmp_path / "a.txt").read_text() == "as it was"
    assert not [place for place in content_of(tmp_path) if "unfinished" in place]
    WRITES[name](tmp_path)  # when there is room again


def test_a_log_keeps_whole_lines(tmp_path):
    file, lines = tmp_path / "metrics.jsonl", 0
    with pytest.raises(UserError, match="metrics.jsonl cannot be written"), full_disk():
        log = MetricsLog(file)
        for lines in range(1000):
            log.write({"step": lines, "text": "x" * 100})
    found = [json.loads(line)["step"] for line in file.read_text().splitlines()]
    assert found == list(range(lines))


def test_a_log_that_a_kill_cut_short(tmp_path):
    file = tmp_path / "metrics.jsonl"
    file.write_text('{"step": 1}\n{"st')
    with MetricsLog(file) as log:
        log.write({"step": 2, "held_out": {0: float("nan"), 1: [1.0, float("inf")]}})
    lines = file.read_text().splitlines()
    assert lines[:2] == ['{"step": 1}', '{"st']
    assert json.loads(lines[2]) == {"step": 2, "held_out": {"0": None, "1": [1.0, None]}}
