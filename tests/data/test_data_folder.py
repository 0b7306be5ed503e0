import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data import data_folder
from dsd_jax.data.data_folder import DataFolder, RequiredFile, existing_folder
from dsd_jax.data.data_folder import image_reader as reader
from dsd_jax.errors import UserError

ROOT_ITSELF = RequiredFile(("",), "")

REMEDY = "; put it there, or name another folder by --config.data.folder."


def locate(root, folders, names, source):
    return DataFolder(root, root, RequiredFile(folders, source), "stretch").locate(names)


def find(root, files, images=ROOT_ITSELF, image_root=None):
    return DataFolder(root, image_root or root, images, "stretch").find(files)


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


def test_folders_are_listed_once_and_no_image_is_looked_up(root, monkeypatch):
    listed = []
    scan = os.scandir
    monkeypatch.setattr(data_folder.os, "scandir", lambda f: listed.append(f) or scan(f))
    monkeypatch.setattr(data_folder.os, "stat", None)
    for i in range(300):
        (root / "a" / f"x{i}.jpg").touch()
    locate(root, ("a", "b"), [f"x{i}.jpg" for i in range(300)] + ["sub/3.jpg"], "")
    assert sorted(str(f.relative_to(root)) for f in listed) == ["a", "a/sub", "b/sub"]


def test_missing_ones_are_counted_and_the_first_named(root):
    names = ["1.jpg", *(f"no{i}.jpg" for i in range(1500))]
    with pytest.raises(UserError) as told:
        locate(root, ("a", "b"), names, "x.org")
    assert str(told.value) == (
        "1,500 of 1,501 images are missing (no0.jpg, no1.jpg, no2.jpg, ...): expected them in "
        f"{root}/a or {root}/b, from x.org."
    )


NFC, NFD = "caf\u00e9", "cafe\u0301"


@pytest.mark.parametrize(("asked", "there"), [(NFC, NFD), (NFD, NFC)])
def test_names_in_the_other_unicode_normal_form(tmp_path, asked, there):
    (tmp_path / there / "sub").mkdir(parents=True)
    for name in (f"{there}.jpg", f"{there}/{there}.jpg", f"{there}/sub/1.jpg", "\u1112.jpg"):
        (tmp_path / name).touch()
    names = [f"{asked}.jpg", f"{asked}/{asked}.jpg", f"{asked}/sub/1.jpg"]
    found = locate(tmp_path, ("", "other"), names, "")
    assert list(found.values()) == [name.replace(asked, there) for name in names]
    assert locate(tmp_path, (asked,), [f"{asked}.jpg"], "")[f"{asked}.jpg"].startswith(there)
    with pytest.raises(UserError, match="1 of 1 images are missing"):
        locate(tmp_path, ("",), [f"{asked}/{asked}s.jpg"], "")


def test_the_name_as_it_is_written_comes_first(tmp_path):
    for name in (NFC, NFD):
        (tmp_path / name).touch()
    assert locate(tmp_path, ("",), [NFC, NFD], "") == {NFC: NFC, NFD: NFD}


@pytest.mark.parametrize("name", ["a" * 300 + ".jpg", "a" * 300 + "/1.jpg", "a\0.jpg", "\0/a.jpg"])
def test_names_that_no_file_has_are_missing(tmp_path, name):
    with pytest.raises(UserError, match="1 of 1 images are missing") as told:
        locate(tmp_path, ("",), [name], "")
    assert len(str(told.value)) < len(str(tmp_path)) + 250


def test_folders_that_may_not_be_read(tmp_path, monkeypatch):
    def scan(folder):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(data_folder.os, "scandir", scan)
    with pytest.raises(UserError, match=r"b can't be read \(Permission denied\)"):
        locate(tmp_path, ("b",), ["1.jpg"], "")


def test_fit(tmp_path):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, 20:40] = 255  # the middle square is white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert reader(tmp_path, "crop")("a.png", 16).min() > 240  # the filter sees a bit of the edge
    stretched = reader(tmp_path, "stretch")("a.png", 12)
    assert stretched[:, 0].max() < 40 and stretched[:, 6].min() > 215
    assert reader(tmp_path, "stretch")(("a.png", 20, 0, 20, 20), 16).min() == 255
    assert reader(tmp_path, "crop")(("a.png", 10, 0, 40, 20), 16).min() > 240


def test_the_first_of_several_places(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    (tmp_path / "b").touch()
    files = [RequiredFile(("a", "data/a"), "x"), RequiredFile(("b", "data/b"), "y")]
    assert find(tmp_path, files) == [tmp_path / "data" / "a", tmp_path / "b"]


def test_all_that_is_missing_is_told_at_once(tmp_path):
    (tmp_path / "b").touch()
    files = [
        RequiredFile(("a", "data/a"), "x.org"),
        RequiredFile(("b",), "y.org"),
        RequiredFile(("c",), "z.org"),
    ]
    with pytest.raises(UserError) as told:
        find(tmp_path, files)
    assert str(told.value) == f"{tmp_path} lacks a or data/a, from x.org; c, from z.org{REMEDY}"


def test_images_are_told_along_with_other_missing_files(tmp_path):
    images = RequiredFile(("images", "pics", ""), "z.org")
    (tmp_path / "b").touch()
    assert find(tmp_path, [RequiredFile(("b",), "y.org")], images)
    with pytest.raises(UserError, match="lacks a, from x.org; images or pics, from z.org; put"):
        find(tmp_path, [RequiredFile(("a",), "x.org")], images)
    (tmp_path / "elsewhere" / "pics").mkdir(parents=True)
    with pytest.raises(UserError, match="lacks a, from x.org; put"):
        find(tmp_path, [RequiredFile(("a",), "x.org")], images, tmp_path / "elsewhere")


def test_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert existing_folder("~") == tmp_path
    (tmp_path / "file").touch()
    for name in ("~/file", "~/nothing", ""):
        with pytest.raises(UserError, match=f"folder='{name}' is no folder; name the one"):
            existing_folder(name)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/data", "a" * 300, "a\0b"])
def test_folders_that_cannot_be(name):
    with pytest.raises(UserError, match=r"nobody-of-this-name|is no folder \(.*\); name the one"):
        existing_folder(name)


def test_folders_that_may_not_be_looked_into(tmp_path, monkeypatch):
    def lstat(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", lstat)
    with pytest.raises(UserError, match=r"x can't be looked for .*Permission denied"):
        find(tmp_path, [RequiredFile(("x",), "")])
