"""A run's folder and caches: nothing of the user is lost or changed, nothing damaged is served."""

import io
import json
import os
import random
import shutil

import numpy as np
import pytest
from etils import epath

from dsd_jax.benchmarks.encoding_cache import EncodingCache
from dsd_jax.benchmarks.table_rows import RowKey
from dsd_jax.experiment.score_cache import ScoreCache
from dsd_jax.experiment.workdir import REPORTS, open_workdir
from tests.files import replace_by
from tests.mutations.mutate import (
    NUMBERS,
    ODD,
    count,
    dumped,
    garbled,
    generator,
    mutated,
    snapshot,
)

SETTINGS = {"seed": 0, "learn": {"lora": {"rank": 4}}, "methods": ["dsd"], "cpu_devices": 2}
OTHERS = [{"seed": 1}, {"learn": {}}, {"cpu_devices": 4}, {"seed": None}, {"more": [1]}]
SCORES = {RowKey("dsd"): np.arange(6.0).reshape(3, 2)}
OTHER = {RowKey("dsd"): np.zeros(2)}
FOLDERS = ["", "scores", "checkpoints", "prompts", "evaluate", "prompts/lora-4/seed-0", "mine"]
NAMES = [
    "notes.txt", "unfinished.txt", "unfinished-mine", "report.md.0123abcd.unfinished",
    f"{'0' * 32}.scores", f"{'0' * 32}.scores.0123abcd.unfinished.txt", "mine.scores", "a\nb",
    "\u00e9", "report.json~", ".hidden", "config.json", "run.json", "report.html", "metrics.jsonl",
]  # fmt: skip


def run(folder, command="train", settings=SETTINGS):
    """What a run does in its folder."""
    with open_workdir(folder, command, settings) as opened:
        if opened.is_finished:
            return opened.folder
        opened.begin(json.dumps(settings))
        kept = ScoreCache(opened.folder / "scores", json.dumps(settings))
        kept.load_or_compute("items", lambda: SCORES)
        opened.write_reports({name: f"{name} {json.dumps(settings)}" for name in REPORTS})
        kept.delete()
        return opened.folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(folder)
    (folder / "prompts" / "lora-4" / "seed-0").mkdir(parents=True)
    (folder / "checkpoints").mkdir()
    return folder


def disturb(rng: random.Random, folder, outside) -> None:
    """Something that a user may do to a run's folder."""
    place = folder / rng.choice(FOLDERS)
    if place.resolve() != place or not place.parent.is_dir():
        return  # a link by now, or below one
    name = rng.choice(NAMES)
    what = rng.choice(["add", "add", "add", "write", "json", "delete", "no file", "lead out"])
    if what == "add" and not os.path.lexists(place / name):
        place.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(rng.choice([b"mine", b"", b"{}", b"\0" * 64]))
    own = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    if not own:
        return
    file = rng.choice(own)
    if what == "write":
        file.write_bytes(garbled(rng, file.read_bytes() or b"{}"))
    elif what == "json" and file.suffix == ".json" and file.name in ("run.json", "config.json"):
        try:
            content = json.loads(file.read_text())
        except ValueError:
            return
        if isinstance(content, dict) and content:
            file.write_text(dumped(mutated(rng, content, [*ODD, *NUMBERS])))
    elif what == "delete":
        file.unlink()
    elif what == "no file":
        replace_by(file, rng.choice(("fifo", "folder", "link", "loop")))
    elif what == "lead out" and not os.path.lexists(place / "scores"):
        place.mkdir(parents=True, exist_ok=True)
        (place / "scores").symlink_to(outside)


def test_finished_runs(finished, tmp_path, tried):
    rng = generator("runs")
    written = snapshot(finished)
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine")
    (outside / f"{'0' * 32}.scores").write_text("mine")
    elsewhere = snapshot(outside)
    for _ in range(count(40)):
        folder = shutil.copytree(finished, tmp_path / "run", symlinks=True)
        for _ in range(rng.choice((1, 1, 2, 3))):
            disturb(rng, folder, outside)
        before = snapshot(folder)
        settings = SETTINGS | (rng.choice(OTHERS) if rng.random() < 0.5 else {})
        command = rng.choice(("train", "train", "evaluate"))
        done = tried(run, folder, command, settings)
        after = snapshot(folder)
        assert snapshot(outside) == elsewhere
        if done is None:  # nothing but the folder in which evaluate looks
            assert {name: x for name, x in after.items() if name != "evaluate"} == {
                name: x for name, x in before.items() if name != "evaluate"
            }
        else:
            foreign = {name: x for name, x in before.items() if x != written.get(name)}
            marker = foreign.pop("run.json", None)
            assert marker is None or json.loads(marker)["program"] == "dsd_jax"
            assert {name: after.get(name) for name in foreign} == foreign
            assert not [
                name for name in after if name.endswith(".unfinished") and name not in before
            ]
        shutil.rmtree(folder)


def damage(rng: random.Random, file) -> None:
    """Something that happens to a file of numbers."""
    content = bytearray(file.read_bytes())
    other = io.BytesIO()
    what = rng.choice(["flip", "garble", "cut", "shape", "pickle", "zip", "empty", "no file"])
    if what == "flip":
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif what == "garble":
        content = garbled(rng, bytes(content))
        content = content if content != file.read_bytes() else b""
    elif what == "cut":
        content = content[: rng.randrange(len(content))]
    elif what == "shape":
        np.save(other, np.zeros(rng.choice([(), (1,), (5,), (2, 3), (0,)])))
    elif what == "pickle":
        np.save(other, np.array([{"a": 1}]), allow_pickle=True)
    elif what == "zip":
        np.savez(other, np.zeros(3))
    if what == "no file":
        replace_by(file, rng.choice(("fifo", "folder", "link", "loop")))
    else:
        file.write_bytes(other.getvalue() or (b"" if what == "empty" else bytes(content)))


@pytest.mark.filterwarnings("ignore:cache. .* damaged")
def test_entries_of_the_cache(tmp_path, tried):
    rows = np.arange(15.0, dtype=np.float32).reshape(5, 3)
    inputs = [str(i).encode() for i in range(5)]
    params = {"a": np.ones(3, np.float32)}
    rng = generator("cache")
    for _ in range(count(40)):
        folder = tmp_path / "cache"
        EncodingCache(folder, params, "same").rows(inputs, rows.__getitem__)
        files = sorted(folder.rglob("*.npy"))
        assert len(files) == 5
        for file in rng.sample(files, rng.choice((1, 2))):
            damage(rng, file)
        if rng.random() < 0.2:  # one entry in the place of another
            one, other = rng.sample(files, 2)
            if one.is_file():
                if other.is_dir() and not other.is_symlink():
                    other.rmdir()
                other.unlink(missing_ok=True)
                shutil.copy(one, other)
        found = tried(EncodingCache(folder, params, "same").rows, inputs, rows.__getitem__)
        np.testing.assert_array_equal(found, rows)
        for other in (
            EncodingCache(folder, params, "another"),
            EncodingCache(folder, {"a": np.ones(2)}, "same"),
        ):
            np.testing.assert_array_equal(other.rows(inputs, lambda i: rows[i] + 1), rows + 1)
        shutil.rmtree(folder)
    assert not tried.refused


def test_kept_scores(tmp_path, tried):
    rng = generator("kept")
    for _ in range(count(40)):
        folder = epath.Path(tmp_path / "scores")
        ScoreCache(folder, "identity").load_or_compute("items", lambda: SCORES)
        (file,) = (tmp_path / "scores").iterdir()
        damage(rng, file)
        kept = ScoreCache(folder, "identity")
        found = tried(kept.load_or_compute, "items", lambda: SCORES)
        if found is not None:
            assert found.keys() == SCORES.keys()
            np.testing.assert_array_equal(found[next(iter(SCORES))], next(iter(SCORES.values())))
        again = ScoreCache(folder, "another").load_or_compute("items", lambda: OTHER)
        np.testing.assert_array_equal(again[next(iter(SCORES))], np.zeros(2))
        tried(kept.delete)
        shutil.rmtree(folder, ignore_errors=True)
