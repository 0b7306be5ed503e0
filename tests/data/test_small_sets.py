import hashlib
import os

import pytest

from dsd_jax.benchmarks.registry import open_benchmark
from dsd_jax.config.data_config import DATA
from dsd_jax.data.small_sets import MAKERS, made_folder
from dsd_jax.errors import UserError

# All files' bytes but for the parquet file's, whose writer signs with its version.
SETTINGS = {
    "comvg": {"name": "comvg"},
    "refcocog": {"name": "refcocog"},
    "vqa": {"name": "vqa"},
    "winoground": {"name": "winoground"},
    "sugarcrepe": {"name": "compositional", "layout": "sugarcrepe"},
    "classify": {"name": "classify"},
    "own": {"name": "own"},
}


def digest(folder):
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            total.update(f"{path.relative_to(folder)}\n".encode() + path.read_bytes())
    return total.hexdigest()


@pytest.mark.parametrize("name", list(MAKERS))
def test_made_sets_are_the_same_each_time_and_small(name, tmp_path):
    first, second = (made_folder(name, tmp_path / word) for word in ("a", "b"))
    assert digest(first) == digest(second)
    assert sum(path.stat().st_size for path in first.rglob("*")) < 600_000
    assert os.listdir(tmp_path / "a") == ["made"]


@pytest.mark.parametrize("name", list(MAKERS))
def test_each_is_read_by_its_reader_in_every_split(name, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("DSD_CACHE", "XDG_CACHE_HOME"):  # which come first
        monkeypatch.delenv(variable, raising=False)
    benchmark = open_benchmark(DATA[SETTINGS[name]["name"]](**SETTINGS[name], made=True))
    counts = {}
    for split in benchmark.splits:
        examples = benchmark.load(split)
        images = examples.read_images(examples.images[-1], 32)
        assert images.shape == (len(examples.images[-1]), 32, 32, 3)
        counts[split] = examples.count
    assert 40 <= max(counts.values()) <= 60 or name == "vqa"
    assert os.listdir(tmp_path / ".cache" / "dsd_jax" / "made") == [name]


def test_it_is_made_once(tmp_path, monkeypatch):
    folder = made_folder("own", tmp_path)
    monkeypatch.setitem(MAKERS, "own", None)
    assert made_folder("own", tmp_path) == folder


def test_there_is_none_of_that_name(tmp_path):
    with pytest.raises(UserError, match="There is no made data set 'aro'; expected comvg, refco"):
        made_folder("aro", tmp_path)
