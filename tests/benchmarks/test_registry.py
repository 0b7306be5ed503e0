import inspect
from typing import get_args

import pytest
from PIL import Image

from dsd_jax.benchmarks.registry import READERS, open_benchmark
from dsd_jax.config.data_config import DATA
from dsd_jax.data.datasets import compositional, custom, emoji, refcocog, vqa
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError
from dsd_jax.io import images


def opened(**settings):
    return open_benchmark(DATA[settings["name"]](**settings))


@pytest.fixture
def folder(tmp_path):
    return str(made_folder("own", tmp_path / "made"))


def test_a_config_group_says_all(folder):
    settings = {"name": "own", "folder": folder, "wrong": "captions", "candidates": 5}
    settings |= {"split_rule": "apart", "shots_part": 10, "validation_part": 0.1}
    benchmark = opened(**settings, split_seed=1)
    assert benchmark.splits == ("shots", "validation", "test", "all")
    assert [benchmark.load(split).count for split in benchmark.splits] == [10, 5, 35, 50]
    assert len(benchmark.load("test").captions[0]) == 5
    again = opened(**settings, split_seed=2)
    assert again.load("shots").captions != benchmark.load("shots").captions


def test_a_mapping_is_checked_first(folder):
    assert open_benchmark({"name": "own", "folder": folder}).load("all").count == 50
    for settings, message in (
        ({"name": "owm"}, "data.name is 'owm', expected one of"),
        ({"name": "own", "candidates": "5"}, "data.candidates is '5', expected a whole number"),
        ({}, "data.name is None, expected one of"),
    ):
        with pytest.raises(UserError, match=message):
            open_benchmark(settings)


def test_the_emoji_benchmark_needs_no_folder():
    assert opened(name="emoji").splits == emoji.benchmark().splits


def test_damaged_images_by_config(folder, capfd):
    first = f"{folder}/pictures/00.jpg"
    with open(first, "wb") as file:
        file.write(b"no picture")
    stopped = opened(name="own", folder=folder).load("all")
    assert stopped.count == 50
    with pytest.raises(UserError, match="00.jpg is not an image"):
        stopped.read_images(stopped.images[0], 16)
    skipped = opened(name="own", folder=folder, damaged="skip").load("all")
    assert skipped.count == 49
    assert "1 of 50 images cannot be read, and the 1 of 50 items" in capfd.readouterr().err


def test_prepared_splits_are_cut_and_sized_as_the_config_says(folder, tmp_path):
    settings = {"name": "own", "folder": folder, "split_rule": "authors", "shots_part": 0.1}
    settings |= {"prepared": str(tmp_path / "cache"), "prepared_size": 24}
    shots = opened(**settings).load("shots")
    assert shots.count == 5 and shots.read_images(shots.images[0], 24).shape == (1, 24, 24, 3)
    assert len(list((tmp_path / "cache").rglob("dataset_info.json"))) == 1
    plain = opened(name="own", folder=folder).load("all")
    assert shots.captions == plain.captions[:5]
    # What was cut otherwise is another copy.
    assert opened(**settings | {"shots_part": 0.2}).load("shots").count == 10


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "own"}, "data.folder is not set; name the folder that holds the data"),
        ({"name": "own", "folder": ""}, "data.folder is not set"),
        ({"name": "own", "folder": "/no"}, "folder='/no' is no folder"),
        ({"name": "vqa", "made": True, "split_rule": "apart"}, "vqa comes in splits .* official"),
    ],
)
def test_settings_that_do_not_serve(settings, message, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match=message):
        opened(**settings)


def test_the_typed_fields_are_those_of_the_readers():
    """Readers and fields do not import each other, for --help needs the fields alone."""
    assert list(DATA) == list(READERS)
    for name, reader in READERS.items():
        fields = DATA[name].model_fields
        for parameter in inspect.signature(reader).parameters.values():
            default = fields[parameter.name].get_default()
            assert parameter.default in (default, inspect.Parameter.empty), parameter
    choices = {
        ("own", "fit"): images.FITS,
        ("own", "wrong"): custom.WRONG,
        ("vqa", "form"): vqa.FORMS,
        ("refcocog", "split_by"): tuple(refcocog.SPLITS),
        ("compositional", "layout"): tuple(compositional.LAYOUTS),
    }
    for (name, field), known in choices.items():
        assert get_args(DATA[name].model_fields[field].annotation) == known


def test_fit_is_said_to_the_reader(folder):
    plain, cropped = (
        opened(name="own", folder=folder, fit=fit).load("all") for fit in ("stretch", "crop")
    )
    key = plain.images[0]
    path = f"{folder}/{key[0]}"
    Image.open(path).resize((128, 64)).save(path)
    assert (plain.read_images(key, 16) != cropped.read_images(key, 16)).any()
