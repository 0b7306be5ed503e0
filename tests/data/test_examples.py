from collections import Counter

import pytest

from dsd_jax.data.datasets import custom
from dsd_jax.data.examples import MAX_KINDS, Example, Examples, skip_unreadable
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError


def rows(kinds):
    return [Example((f"caption {i}",), (i, -i), kind, i // 2) for i, kind in enumerate(kinds)]


def test_columns_in_order():
    def read(key, size):
        return None

    examples = Examples.from_items(iter(rows(["b", "a", "b"])), read)
    assert examples.captions == [("caption 0",), ("caption 1",), ("caption 2",)]
    assert examples.images == [(0, 0), (1, -1), (2, -2)] and examples.read is read
    assert examples.kinds == ["b", "a", "b"] and examples.clusters == [0, 0, 1]
    assert Counter(examples.kinds) == {"b": 2, "a": 1}


@pytest.mark.parametrize("kinds", [["a", "", "a"], ["a", None], map(str, range(MAX_KINDS + 1))])
def test_kinds_that_tell_nothing_are_one(kinds):
    assert set(Examples.from_items(rows(kinds), None).kinds) == {"all"}


def test_many_kinds_are_kept_up_to_a_limit():
    assert len(set(Examples.from_items(rows(map(str, range(MAX_KINDS))), None).kinds)) == MAX_KINDS


def test_no_rows_are_no_items():
    assert Examples.from_items([], None).count == 0


@pytest.fixture
def made(tmp_path):
    return made_folder("own", tmp_path)


def damage(folder, *numbers):
    for number in numbers:
        path = folder / "pictures" / f"{number:02d}.jpg"
        path.write_bytes(path.read_bytes()[:700])


def test_all_is_well(made, capfd):
    examples = custom.benchmark(str(made)).load("all")
    assert skip_unreadable(examples, "own all") is examples
    assert "cannot be read" not in capfd.readouterr().err


def test_damaged_images_are_named_and_their_items_left_out(made, capfd):
    damage(made, 3, 17)
    (made / "pictures" / "30.jpg").write_text("no picture")
    # Two items of each picture: one wrong picture is the next item's.
    examples = custom.benchmark(str(made), wrong="pictures", candidates=3).load("all")
    bad = {f"pictures/{name}.jpg" for name in ("03", "17", "30")}
    good = [i for i in range(50) if not bad & set(examples.images[i])]
    assert 50 > len(good) > 30
    whole = skip_unreadable(examples, "own all")
    assert whole[:4] == examples.take(good)[:4]
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "cannot be read," in x]
    out = 50 - len(good)
    assert f"3 of 50 images cannot be read, and the {out} of 50 items with them are left" in line
    assert all(name in line for name in bad)


def test_many_are_counted_and_a_few_named(made, capfd):
    damage(made, *range(20))
    skip_unreadable(custom.benchmark(str(made)).load("all"), "own all")
    err = capfd.readouterr().err
    assert "20 of 50 images" in err and err.count("is it complete") == 5 and "; ..." in err


def test_nothing_left(made):
    damage(made, *range(50))
    with pytest.raises(UserError, match="so that none remains: image .*00.jpg"):
        skip_unreadable(custom.benchmark(str(made)).load("all"), "own all")


def test_by_default_the_first_damaged_image_is_fatal_and_named(made):
    damage(made, 3)
    examples = custom.benchmark(str(made)).load("all")
    with pytest.raises(UserError, match="image .*03.jpg cannot be read"):
        examples.read_images([key for (key,) in examples.images[:10]], 16)
