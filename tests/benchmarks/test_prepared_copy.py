import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from dsd_jax.benchmarks.prepared_copy import check_prepared, with_prepared_copy
from dsd_jax.data.datasets import classification, comvg, custom
from dsd_jax.data.examples import Benchmark
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError
from dsd_jax.io.images import read_image

SIDE = 32


@pytest.fixture
def made(tmp_path):
    return made_folder("comvg", tmp_path / "made")


def opened(folder, cache, size=SIDE, **settings):
    plain = comvg.benchmark(str(folder))
    return with_prepared_copy(plain, str(cache), {"folder": str(folder)} | settings, size)


def test_the_same_items_and_images_in_order(made, tmp_path, capfd):
    plain = comvg.benchmark(str(made)).load("all")
    found = opened(made, tmp_path / "cache").load("all")
    assert found.captions == plain.captions and found.kinds == plain.kinds
    assert len(set(found.clusters)) == len(set(plain.clusters))
    for number in (0, 7, 59):
        np.testing.assert_array_equal(
            found.read_images(found.images[number], SIDE),
            plain.read_images(plain.images[number], SIDE),
        )
    err = capfd.readouterr().err
    assert "Preparing comvg's all in " in err and "absl" not in err
    assert capfd.readouterr().out == ""


def test_each_image_is_kept_once(made, tmp_path):
    import tensorflow_datasets as tfds

    opened(made, tmp_path / "cache").load("all")
    (info,) = tmp_path.glob("cache/**/dataset_info.json")
    splits = tfds.builder_from_directory(info.parent).info.splits
    assert (splits["pictures"].num_examples, splits["items"].num_examples) == (60, 60)


def test_later_runs_read_no_raw_file(made, tmp_path, capfd):
    expected = opened(made, tmp_path / "cache").load("verb")
    for path in made.rglob("*.jpg"):
        path.unlink()
    capfd.readouterr()
    found = opened(made, tmp_path / "cache").load("verb")
    assert found.captions == expected.captions and capfd.readouterr() == ("", "")
    assert found.read_images(found.images[0], SIDE).shape == (2, SIDE, SIDE, 3)


def test_other_settings_or_sizes_are_other_copies(made, tmp_path):
    opened(made, tmp_path).load("verb")
    opened(made, tmp_path, fit="crop").load("verb")
    found = opened(made, tmp_path, size=16).load("verb")
    assert len(list((tmp_path / "comvg").iterdir())) == 3
    with pytest.raises(UserError, match=r"data\.prepared_size is 16, but images of 32 pixels"):
        found.read_images(found.images[0], SIDE)


def test_smaller_images_than_prepared(made, tmp_path):
    """A report shows small ones, and a CLIP may look at smaller ones than the model."""
    found = opened(made, tmp_path, size=64).load("verb")
    small = found.read_images(found.images[0], 24)
    expected = [read_image(large, 24) for large in found.read_images(found.images[0], 64)]
    np.testing.assert_array_equal(small, expected)


@pytest.mark.parametrize(
    ("side", "model", "clip", "message"),
    [
        (256, 512, 0, "is 256, but the model takes images of 512 pixels; set it to 512"),
        (64, 64, 224, "is 64, but CLIP takes images of 224 pixels; set it to 224"),
        (64, 512, 224, "is 64, but the model takes images of 512 pixels; set it to 512"),
    ],
)
def test_images_prepared_too_small_are_refused_by_field(side, model, clip, message):
    data = SimpleNamespace(prepared="x", prepared_size=side)
    with pytest.raises(UserError, match=rf"data\.prepared_size {message}"):
        check_prepared(data, model, clip)


def test_images_prepared_large_enough(capsys):
    check_prepared(SimpleNamespace(prepared="x", prepared_size=512), 512, 224)
    check_prepared(SimpleNamespace(prepared="", prepared_size=1), 512, 224)
    check_prepared(SimpleNamespace(), 512)
    assert capsys.readouterr().err == ""
    check_prepared(SimpleNamespace(prepared="x", prepared_size=224), 64, 224)
    assert "resized twice" in capsys.readouterr().err


def test_a_changed_source_is_told(made, tmp_path, capsys):
    opened(made, tmp_path / "cache").load("verb")
    (table,) = made.glob("*.csv")
    content = table.read_text()
    capsys.readouterr()
    table.write_text(content)  # another time of change alone
    opened(made, tmp_path / "cache").load("verb")
    assert capsys.readouterr().err == ""
    table.write_text(content.replace("a ", "A ", 1))
    opened(made, tmp_path / "cache").load("verb")
    err = capsys.readouterr().err
    assert f"was prepared before {table.name} of {made} changed; delete it" in err
    table.unlink()  # whoever has the copy alone is not bothered
    opened(made, tmp_path / "cache").load("verb")
    assert capsys.readouterr().err == ""


def test_a_changed_folder_of_classes_is_told(tmp_path, capsys):
    folder = made_folder("classify", tmp_path)
    settings = {"folder": str(folder)}
    for name in ("dog/0.jpg", "dog/new.jpg"):
        load = with_prepared_copy(
            classification.benchmark(str(folder)), str(tmp_path / "c"), settings, 16
        ).load
        load("all")
        assert ("prepared before dog of" in capsys.readouterr().err) == (name == "dog/new.jpg")
        (folder / "dog" / "new.jpg").touch()


def test_a_damaged_image_leaves_nothing_half_written(made, tmp_path):
    picture = next(made.rglob("*.jpg"))
    whole = picture.read_bytes()
    picture.write_bytes(whole[:500])
    with pytest.raises(UserError, match=f"{picture.name} cannot be"):
        opened(made, tmp_path / "cache").load("all")
    assert not list((tmp_path / "cache").rglob("*.json"))
    picture.write_bytes(whole)
    assert opened(made, tmp_path / "cache").load("all").count == 60


def test_a_damaged_copy_is_named(made, tmp_path):
    opened(made, tmp_path / "cache").load("all")
    (record,) = tmp_path.rglob("records-items.array_record*")
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"all/1\.0\.0 is damaged .* delete it and run again"):
        opened(made, tmp_path / "cache").load("all")


def test_a_folder_that_cannot_be_written(made, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="Can't write the benchmark into .*file"):
        opened(made, tmp_path / "file").load("all")


def test_an_empty_split(tmp_path):
    empty = Benchmark("made-up", ("all",), lambda split: own_items(tmp_path).take([]))
    with pytest.raises(UserError, match="made-up's split all is empty"):
        with_prepared_copy(empty, str(tmp_path / "cache"), {}, SIDE).load("all")


def own_items(folder):
    return custom.benchmark(str(made_folder("own", folder))).load("all")


def test_importing_costs_nothing():
    heavy = {"tensorflow_datasets", "pyarrow", "jax", "grain"}
    code = f"import sys, dsd_jax.benchmarks.registry; print({heavy} & {{*sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
