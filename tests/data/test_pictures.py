import os

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data import pictures
from dsd_jax.data.pictures import locate, reader
from dsd_jax.errors import UserError


@pytest.fixture
def root(tmp_path):
    for name in ("a/1.jpg", "a/2.jpg", "b/2.jpg", "b/sub/3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_the_first_folder_that_has_it(root):
    names = ["1.jpg", "2.jpg", "sub/3.jpg", "2.jpg"]
    found = locate(root, ("a", "b"), names, "x.org")
    assert found == {"1.jpg": "a/1.jpg", "2.jpg": "a/2.jpg", "sub/3.jpg": "b/sub/3.jpg"}
    assert locate(root, ("nowhere", "b", "a"), names, "")["2.jpg"] == "b/2.jpg"
    assert locate(root / "b", ("../a",), ["1.jpg"], "") == {"1.jpg": "../a/1.jpg"}


def test_folders_are_listed_once_and_no_picture_is_looked_up(root, monkeypatch):
    listed = []
    scan = os.scandir
    monkeypatch.setattr(pictures.os, "scandir", lambda f: listed.append(f) or scan(f))
    monkeypatch.setattr(pictures.os, "stat", None)
    for i in range(300):
        (root / "a" / f"x{i}.jpg").touch()
    locate(root, ("a", "b"), [f"x{i}.jpg" for i in range(300)] + ["sub/3.jpg"], "")
    assert sorted(str(f.relative_to(root)) for f in listed) == ["a", "a/sub", "b/sub"]


def test_missing_ones_are_counted_and_the_first_named(root):
    names = ["1.jpg", *(f"no{i}.jpg" for i in range(1500))]
    with pytest.raises(UserError) as told:
        locate(root, ("a", "b"), names, "x.org")
    assert str(told.value) == (
        "1,500 of 1,501 pictures are missing (no0.jpg, no1.jpg, no2.jpg, ...): expected them in "
        f"{root}/a or {root}/b, from x.org."
    )


def test_fit(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # the middle square is white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert reader(tmp_path, "crop")("a.png", 16).min() > 240  # the filter sees a bit of the edge
    stretched = reader(tmp_path, "stretch")("a.png", 12)
    assert stretched[:, 0].max() < 40 and stretched[:, 6].min() > 215
    assert reader(tmp_path, "stretch")(("a.png", 20, 0, 20, 20), 16).min() == 255
    assert reader(tmp_path, "crop")(("a.png", 10, 0, 40, 20), 16).min() > 240
