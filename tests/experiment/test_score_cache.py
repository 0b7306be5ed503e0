"""The score cache: intact files are read, damaged ones computed again, no others deleted."""

import numpy as np
import pytest

from dsd_jax.benchmarks.table_rows import RowKey
from dsd_jax.errors import UserError
from dsd_jax.experiment.score_cache import ScoreCache

SCORES = {
    RowKey("dsd"): np.arange(6, dtype=np.float32).reshape(3, 2, 1),
    RowKey("dsd", "lora-16", 3): np.ones((3, 2, 1), np.float32),
}


def compute():
    return SCORES


def none_computed():
    pytest.fail("computed again")


def assert_same(found):
    assert list(found) == list(SCORES)
    for key, values in SCORES.items():
        np.testing.assert_array_equal(found[key], values)


def test_found_again(tmp_path):
    for computed in (compute, none_computed):
        assert_same(ScoreCache(tmp_path / "scores", "a run").load_or_compute("items", computed))


def test_any_damage_is_noticed(tmp_path):
    cache = ScoreCache(tmp_path / "scores", "a run")
    cache.load_or_compute("items", compute)
    (file,) = (tmp_path / "scores").iterdir()
    whole = file.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        file.write_bytes(damaged[: rng.integers(len(whole))] if rng.random() < 0.3 else damaged)
        calls = []
        assert_same(cache.load_or_compute("items", lambda calls=calls: calls.append(1) or SCORES))
        assert calls == [1] and file.read_bytes() == whole


def test_a_bug_is_not_taken_for_damage(tmp_path, monkeypatch):
    cache = ScoreCache(tmp_path / "scores", "a run")
    cache.load_or_compute("items", compute)

    def load(*_, **__):
        raise ImportError("a bug")

    monkeypatch.setattr(np, "load", load)
    with pytest.raises(ImportError, match="a bug"):
        cache.load_or_compute("items", compute)


def test_what_is_deleted_is_scores_alone(tmp_path):
    folder = tmp_path / "scores"
    ScoreCache(folder, "another host's part").load_or_compute("items", compute)
    cache = ScoreCache(folder, "a run")
    cache.load_or_compute("items", compute)
    (folder / ("0" * 32 + ".scores.01234567.unfinished")).write_bytes(b"a kill")
    mine = ["notes.txt", "unfinished", "unfinished-pictures/cat.png", "0" * 32 + ".scores", "a.npz"]
    for name in mine:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    cache.delete()
    left = {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
    assert left == set(mine)


def test_nothing_is_left_of_a_folder_of_its_own(tmp_path):
    cache = ScoreCache(tmp_path / "scores", "a run")
    cache.load_or_compute("items", compute)
    (file,) = (tmp_path / "scores").iterdir()
    file.write_bytes(b"damaged")
    cache.delete()
    cache.delete()
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "scores").write_text("mine")
    with pytest.raises(UserError, match="scores cannot be written to .*; make room or allow it"):
        ScoreCache(tmp_path / "scores", "a run").load_or_compute("items", compute)
