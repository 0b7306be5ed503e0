"""`dsd-jax cache` tells what the caches hold, and deletes what is the program's and no more."""

import os
import time
from pathlib import Path

import pytest

from dsd_jax.cache import main
from dsd_jax.errors import UserError

DAY = 86_400


@pytest.fixture
def caches(tmp_path, monkeypatch) -> Path:
    """A cache folder with an old and a new entry of each kind, and what somebody else put there."""
    folder = tmp_path / "caches"
    monkeypatch.setenv("DSD_CACHE", str(folder))
    for name, age in (
        *(("programs/jit_old-1-cache", 90), ("programs/jit_old-1-atime", 40)),
        *(("programs/jit_new-2-cache", 90), ("programs/jit_new-2-atime", 0)),
        *(("encoded/vae/ab/old.npy", 40), ("encoded/vae/cd/new.npy", 0)),
        *(("emoji/unseen/1.0/a.record", 40), ("emoji/unseen/1.0/b.record", 0)),
        *(("made/own/a.png", 40), ("notes/mine.txt", 40), ("mine.txt", 40)),
    ):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
        os.utime(file, (time.time() - age * DAY,) * 2)
    return folder


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_it_lists_kinds_with_sizes(caches, capsys):
    main([])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{caches}:"
    kinds = {line.split()[0]: line.split()[1:3] for line in lines[1:] if line.startswith("  ")}
    kinds.pop("models", None)  # of the Hub, if there are any on this machine
    kB = {"programs": "4", "encoded": "2", "emoji": "2", "made": "1"}
    assert kinds == {kind: [size, "kB"] for kind, size in kB.items()}
    assert [line for line in lines if "made" in line and line.endswith("last used 40 days ago")]


def test_clean_takes_what_was_not_used_lately(caches, capsys):
    before = left(caches)
    main(["clean", "--older-than=30", "--dry-run"])
    assert left(caches) == before
    assert f"would clean 2 kB of {caches}/programs" in capsys.readouterr().out
    main(["clean", "--older-than=30"])
    assert before - left(caches) == {
        "programs/jit_old-1-cache",
        "programs/jit_old-1-atime",
        "encoded/vae/ab/old.npy",
        "made/own/a.png",
    }


def test_clean_leaves_what_others_put_there(caches, tmp_path, capsys):
    main(["clean", "programs"])
    assert not left(caches / "programs") and left(caches / "encoded")
    main(["clean"])
    assert left(caches) == {"notes/mine.txt", "mine.txt"}
    main(["clean"])
    assert f"nothing to clean in {caches}" in capsys.readouterr().out


def test_links_are_not_followed(caches, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").touch()
    for place in (caches / "compiled", caches / "encoded" / "link", caches / "made" / "link"):
        place.symlink_to(tmp_path / "photos")
    (caches / "programs" / "jit_x-1-cache").symlink_to(tmp_path / "photos" / "a.png")
    main(["clean"])
    assert (tmp_path / "photos" / "a.png").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clean", "program"], "no cache 'program'; did you mean programs[?] Expected some of "),
        (["clean", "--older-than=-1"], "--older-than=-1.0 should be a number of days, 0 or more"),
        (["empty"], "invalid choice: 'empty'"),
    ],
)
def test_a_mistake_is_one_sentence(caches, arguments, message):
    before = left(caches)
    with pytest.raises(UserError, match=message):
        main(arguments)
    assert left(caches) == before


def test_no_cache_is_no_mistake(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DSD_CACHE", str(tmp_path / "none"))
    main([])
    assert "nothing" in capsys.readouterr().out
