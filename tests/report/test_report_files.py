"""The files of a report, and its printed table."""

import json

import numpy as np
import pytest

from dsd_jax.report import (
    HeldOutGain,
    LearningRun,
    RunDetails,
    Term,
    format_table,
    report_files,
)

HEADER = {
    "benchmark": "emoji <scenes>",
    "weights": "tiny",
    "seed": 0,
    "seconds": 75.4,
    "device": "cpu",
    "versions": {"jax": "0.10.2"},
}


def row(method="dsd", prompts=None, split="unseen", kind="mean", value=0.75, n=500, **other):
    fields = {"metric": "accuracy", "stderr": 0.0123, "chance": 0.5, **other}
    names = {"method": method, "prompts": prompts, "split": split, "kind": kind}
    return {**names, "value": value, "n": n, **fields}


ROWS = [
    row(kind="mean", value=0.801, n=1000),
    row(kind="subject", value=0.7),
    row(kind="relation", value=0.902),
    row("noise", kind="subject", value=0.849),
    row("noise", value=0.849, n=1000),
    row("dsd", "lora-256", kind="subject", value=0.777, n=1500),
    row(split="seen", value=0.51),
]
COMPARISON = {
    "method": "dsd",
    "prompts": "lora-256",
    "baseline_method": "noise",
    "baseline_prompts": None,
    "split": "unseen",
    "kind": "mean",
    "difference": -0.0123,
    "stderr": 0.004,
    "n": 1000,
}


def test_markdown_has_the_same_numbers_and_the_paired_differences():
    comparisons = [COMPARISON, {**COMPARISON, "kind": "size"}]
    markdown = report_files(HEADER, ROWS, comparisons=comparisons)["report.md"]
    unseen, seen, differences = markdown.split("\n\n|")[1:]
    lines = [
        line.strip("| ").split(" | ") for line in unseen.splitlines() if line.startswith((" ", "|"))
    ]
    assert lines[0] == ["unseen", "prompts", "subject", "relation", "mean"]
    assert lines[2] == ["`dsd`", "zero-shot", "70.0 ± 1.2", "**90.2 ± 1.2**", "80.1 ± 1.2"]
    assert lines[3] == ["`dsd`", "lora-256", "77.7 ± 1.2", "–", "–"]
    assert lines[4][2:] == ["**84.9 ± 1.2**", "–", "**84.9 ± 1.2**"]
    assert "51.0 ± 1.2" in seen
    assert differences.count("-1.2 ± 0.4") == 1  # of the mean alone
    assert "| `dsd` lora-256 | `noise` zero-shot |" in differences


def test_what_was_refused_stands_beside_its_name():
    refused = row("dsd", "lora-256", refused="lora 3/3")
    assert "lora-256 (refused: lora 3/3)" in format_table([row(), refused])
    files = report_files(HEADER, [row(), refused])
    assert "lora-256 (refused: lora 3/3)" in files["report.md"]
    assert "&#10007; refused" in files["report.html"]
    assert json.loads(files["report.json"])["results"] == [row(), refused]


def test_learning_is_told():
    gain = HeldOutGain("LoRA", kept=True, gain=0.2, error=0.05, items=51)
    details = RunDetails(learning=[LearningRun("lora-256", 0, {0: 0.7, 20: 0.5}, 20, [gain])])
    files = report_files(HEADER, ROWS, details=details)
    assert "| lora-256 | 0 | LoRA | +0.200 ± 0.050 | 20 | kept |" in files["report.md"]
    (run,) = json.loads(files["report.json"])["learning"]
    assert run["losses"] == {"0": 0.7, "20": 0.5} and run["kept_step"] == 20
    assert run["gains"] == [{"what": "LoRA", "kept": True, "gain": 0.2, "error": 0.05, "items": 51}]


def test_long_paths_of_prompts_widen_no_table():
    path = "/home/someone/with/a/long/name/runs/emoji/prompts/adapted-256/seed-0"
    rows = [row(), row("dsd", path)]
    gain = HeldOutGain("LoRA", kept=True, gain=0.2, error=0.05)
    run = LearningRun(path, 0, {0: 0.7, 20: 0.5}, 20, [gain])
    details = RunDetails(recipes=[Term(path, "LoRA.")], learning=[run])
    compared = {**COMPARISON, "prompts": path}
    files = report_files(HEADER, rows, comparisons=[compared], details=details)
    assert path not in format_table(rows) and path not in files["report.md"]
    assert files["report.md"].count("…/adapted-256/seed-0") == 3
    page = files["report.html"].replace(f'title="{path}"', "")
    assert path not in page and "…/adapted-256/seed-0" in page
    assert path in files["report.json"]


def test_json_is_as_documented():
    files = report_files(HEADER, ROWS)
    assert sorted(files) == ["report.html", "report.json", "report.md"]
    assert json.loads(files["report.json"]) == {**HEADER, "results": ROWS}
    report = json.loads(report_files(HEADER, ROWS, comparisons=[COMPARISON])["report.json"])
    assert report["comparisons"] == [COMPARISON]


def test_numbers_of_numpy_are_written():
    rows = [row(value=np.float32(0.5), n=np.int64(3), stderr=np.ones(()))]
    (written,) = json.loads(report_files(HEADER, rows)["report.json"])["results"]
    assert (written["value"], written["n"], written["stderr"]) == (0.5, 3, 1.0)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (row(value=float("nan")), "value of a row is not finite"),
        (row(stderr=np.float32("inf")), "stderr of a row is not finite"),
        (row(extra=1), "a row has fields"),
        ({"method": "dsd"}, "a row has fields"),
    ],
)
def test_what_is_no_result_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        report_files(HEADER, [bad])


def test_each_metric_has_a_table_of_its_own():
    rows = [{**row(), "metric": metric} for metric in ("text", "group")]
    markdown = report_files(HEADER, rows)["report.md"]
    assert "| unseen, text | prompts |" in markdown and "| unseen, group | prompts |" in markdown


def test_markdown_says_what_was_run_and_what_methods_cost():
    markdown = report_files({**HEADER, "passes": {"noise@30": 1200}}, ROWS)["report.md"]
    first, *_, last = markdown.strip().splitlines()
    assert first.startswith("Benchmark emoji <scenes>: weights ") and "minutes on" in first
    assert last == "Rows that an item sends through the UNet: `noise@30` 1,200."
