from pathlib import Path

import pytest

from dsd_jax.data.required_files import Piece, existing_folder, find_pieces
from dsd_jax.errors import UserError


def test_the_first_of_several_places(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").touch()
    (tmp_path / "b").touch()
    pieces = [Piece(("a", "data/a"), "x"), Piece(("b", "data/b"), "y")]
    assert find_pieces(tmp_path, pieces) == [tmp_path / "data" / "a", tmp_path / "b"]


def test_all_that_is_missing_is_told_at_once(tmp_path):
    (tmp_path / "b").touch()
    pieces = [Piece(("a", "data/a"), "x.org"), Piece(("b",), "y.org"), Piece(("c",), "z.org")]
    with pytest.raises(UserError) as told:
        find_pieces(tmp_path, pieces)
    assert str(told.value) == f"{tmp_path} lacks a or data/a, from x.org; c, from z.org."


def test_pictures_are_told_along_with_other_missing_pieces(tmp_path):
    pictures = Piece(("images", "pics", ""), "z.org")
    (tmp_path / "b").touch()
    assert find_pieces(tmp_path, [Piece(("b",), "y.org")], tmp_path, pictures)
    with pytest.raises(UserError, match="lacks a, from x.org; images or pics, from z.org.$"):
        find_pieces(tmp_path, [Piece(("a",), "x.org")], tmp_path, pictures)
    (tmp_path / "elsewhere" / "pics").mkdir(parents=True)
    with pytest.raises(UserError, match="lacks a, from x.org.$"):
        find_pieces(tmp_path, [Piece(("a",), "x.org")], tmp_path / "elsewhere", pictures)


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
        find_pieces(tmp_path, [Piece(("x",), "")])
