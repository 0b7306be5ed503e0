import os
import shutil
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from dsd_jax.data.datasets import emoji
from dsd_jax.data.datasets.emoji import load_items, split_names
from dsd_jax.data.synthetic import triples
from dsd_jax.data.synthetic.scenes import SIDE, draw
from dsd_jax.errors import UserError

FEW = {"shots": 10, "validation": 5, "test": 15}
SPLIT = "unseen-artist/test"


@pytest.fixture(autouse=True)
def few_items(monkeypatch):
    for split, count in FEW.items():
        monkeypatch.setitem(triples.SPLITS, split, count)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A cache folder in which the unseen artist's few items are ready."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        for split, count in FEW.items():
            patch.setitem(triples.SPLITS, split, count)
        load_items(SPLIT, folder)
    return folder


@pytest.mark.parametrize("split", [name for name in split_names() if name.startswith("unseen")])
def test_round_trip_in_order(split, prepared, sprites):
    items = load_items(split, prepared)
    made = list(triples.make_triples(*split.split("/"), sprites.concepts))
    assert len(made) == FEW[split.split("/")[1]]
    assert items.captions == [(triple.caption,) for triple in made]
    assert items.kinds == [triple.kind for triple in made]
    images = items.read_images((key for pair in items.images for key in pair), SIDE)
    assert images.dtype == np.uint8
    expected = np.array([[draw(t.positive, sprites), draw(t.negative, sprites)] for t in made])
    np.testing.assert_array_equal(images, expected.reshape(images.shape))
    np.testing.assert_array_equal(items.take([3]).read_images(items.images[3], SIDE), expected[3])
    assert items.read_images([], SIDE).shape == (0, SIDE, SIDE, 3)


def test_second_load_prepares_nothing(prepared, monkeypatch, capfd):
    monkeypatch.setattr("dsd_jax.data.datasets.record_builders.make_triples", None)
    assert len(load_items(SPLIT, prepared).captions) == FEW["test"]
    assert capfd.readouterr() == ("", "")


def test_default_folder_is_in_the_users_cache(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("DSD_CACHE", "XDG_CACHE_HOME"):  # which come first
        monkeypatch.delenv(variable, raising=False)
    load_items("seen-artists/validation")
    assert os.listdir(tmp_path / ".cache" / "dsd_jax") == ["emoji"]
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("Preparing the emoji benchmark's seen-artists in ")


KILLED = """
import os, signal, sys
from dsd_jax.data.datasets import record_builders
from dsd_jax.data.synthetic import triples
triples.SPLITS.update({few})
made = record_builders.make_triples
def make_triples_until_killed(artists, split, concepts):
    for i, triple in enumerate(made(artists, split, concepts)):
        if (split, i) == ("test", 7):
            os.kill(os.getpid(), signal.SIGKILL)
        yield triple
record_builders.make_triples = make_triples_until_killed
from dsd_jax.data.datasets.emoji import load_items
load_items("{split}", sys.argv[1])
"""


def test_killed_preparation_leaves_nothing_half_written(tmp_path):
    code = textwrap.dedent(KILLED).format(few=FEW, split=SPLIT)
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True)
    assert killed.returncode == -9, killed.stderr.decode()
    (unfinished,) = tmp_path.glob("unfinished-*")
    assert len(load_items(SPLIT, tmp_path).captions) == FEW["test"]
    assert unfinished.exists()  # perhaps somebody's who is still at work
    yesterday = time.time() - 2 * 24 * 3600
    os.utime(unfinished, (yesterday, yesterday))
    load_items("seen-artists/test", tmp_path)
    assert not unfinished.exists()


def test_two_at_once_both_get_the_items(tmp_path, prepared, monkeypatch):
    """While one process prepares, another finishes: the other's copy stays, and neither fails."""
    from dsd_jax.data.datasets import record_builders

    made = record_builders.make_triples

    def make_triples_while_another_finishes(*group):
        shutil.copytree(prepared / "emoji", tmp_path / "emoji", dirs_exist_ok=True)
        return made(*group)

    monkeypatch.setattr(record_builders, "make_triples", make_triples_while_another_finishes)
    items = load_items(SPLIT, tmp_path)
    assert items.captions == load_items(SPLIT, prepared).captions
    assert os.listdir(tmp_path) == ["emoji"]


def test_damaged_copy_is_named(tmp_path, prepared):
    shutil.copytree(prepared, tmp_path, dirs_exist_ok=True)
    (record,) = tmp_path.rglob("emoji-test.array_record*")
    record.write_bytes(record.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"unseen-artist/1\.1\.0 is damaged .* delete it"):
        load_items(SPLIT, tmp_path)


def test_copy_with_items_missing_is_named(prepared, monkeypatch):
    monkeypatch.setitem(triples.SPLITS, "test", FEW["test"] + 1)
    with pytest.raises(UserError, match="15 items of test instead of 16"):
        load_items(SPLIT, prepared)


def test_unknown_split_is_answered_with_the_list():
    with pytest.raises(UserError, match="Unknown split 'test': .* unseen-artist/test"):
        load_items("test")


def test_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="Can't write the benchmark into .*file"):
        load_items(SPLIT, tmp_path / "file")


def test_importing_costs_nothing():
    code = "import sys, dsd_jax.data.datasets.emoji; print('tensorflow_datasets' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert emoji.IMAGES == ("positive", "negative")
