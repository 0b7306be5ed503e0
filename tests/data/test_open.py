import inspect

import pytest
from ml_collections import ConfigDict
from PIL import Image

from dsd_jax.data import emoji
from dsd_jax.data.made.make import made_folder
from dsd_jax.data.open import COMMON, READERS, open_benchmark
from dsd_jax.errors import UserError


@pytest.fixture
def folder(tmp_path):
    return str(made_folder("own", tmp_path / "made"))


def test_a_config_group_says_all(folder):
    config = ConfigDict({"name": "own", "folder": folder, "wrong": "captions", "candidates": 5})
    config.split_rule, config.shots_part, config.validation_part = "apart", 10, 0.1
    config.split_seed = 1
    benchmark = open_benchmark(config.lock())
    assert benchmark.splits == ("shots", "validation", "test", "all")
    assert [benchmark.load(split).count for split in benchmark.splits] == [10, 5, 35, 50]
    assert len(benchmark.load("test").captions[0]) == 5
    config.unlock().split_seed = 2
    assert open_benchmark(config).load("shots").captions != benchmark.load("shots").captions


def test_the_emoji_benchmark_needs_no_folder():
    assert open_benchmark({"name": "emoji"}).splits == emoji.benchmark().splits


def test_damaged_pictures_by_config(folder, capfd):
    first = f"{folder}/pictures/00.jpg"
    with open(first, "wb") as file:
        file.write(b"no picture")
    stopped = open_benchmark({"name": "own", "folder": folder}).load("all")
    assert stopped.count == 50
    with pytest.raises(UserError, match="00.jpg is not a picture"):
        stopped.images(stopped.pictures[0], 16)
    skipped = open_benchmark({"name": "own", "folder": folder, "damaged": "skip"}).load("all")
    assert skipped.count == 49
    assert "1 of 50 pictures cannot be read, and the 1 of 50 items" in capfd.readouterr().err


def test_prepared_splits_are_cut_and_sized_as_the_config_says(folder, tmp_path):
    settings = {"name": "own", "folder": folder, "split_rule": "authors", "shots_part": 0.1}
    settings |= {"prepared": str(tmp_path / "cache"), "prepared_size": 24}
    shots = open_benchmark(settings).load("shots")
    assert shots.count == 5 and shots.images(shots.pictures[0], 24).shape == (1, 24, 24, 3)
    plain = open_benchmark({"name": "own", "folder": folder}).load("all")
    assert shots.captions == plain.captions[:5]
    # What was cut otherwise is another copy.
    assert open_benchmark(settings | {"shots_part": 0.2}).load("shots").count == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "data.name is None; expected emoji, comvg, refcocog, vqa, winoground"),
        ({"name": "coco"}, "data.name is 'coco'; expected emoji"),
        ({"name": "own"}, "data.folder is not set; name the folder that holds the data"),
        ({"name": "own", "folder": ""}, "data.folder is not set"),
        ({"name": "own", "foldr": "x"}, "data.foldr is no field of own; expected folder, wrong, "),
        ({"name": "own", "folder": "/no"}, "folder='/no' is no folder"),
        ({"name": "own", "folder": ".", "fit": "pad"}, "fit is 'pad'; expected stretch or crop"),
        ({"name": "own", "folder": ".", "damaged": "no"}, "damaged is 'no'; expected stop or skip"),
        ({"name": "own", "made": True, "split_rule": "x"}, "split_rule is 'x'; expected official"),
        ({"name": "vqa", "made": True, "split_rule": "apart"}, "vqa comes in splits .* official"),
        ({"name": "own", "folder": ".", "prepared_size": 0}, "prepared_size is 0; expected 8 to 9"),
        ({"name": "emoji", "made": True}, "There is no made data set 'emoji'"),
    ],
)
def test_settings_that_do_not_serve(settings, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=message):
        open_benchmark(settings)


def test_no_reader_has_a_field_of_all_readers():
    for reader in READERS.values():
        assert not set(COMMON) & set(inspect.signature(reader).parameters)


def test_fit_is_said_to_the_reader(folder):
    plain, cropped = (
        open_benchmark({"name": "own", "folder": folder, "fit": fit}).load("all")
        for fit in ("stretch", "crop")
    )
    key = plain.pictures[0]
    path = f"{folder}/{key[0]}"
    Image.open(path).resize((128, 64)).save(path)
    assert (plain.images(key, 16) != cropped.images(key, 16)).any()
