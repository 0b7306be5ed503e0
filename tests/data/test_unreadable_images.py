import pytest

from dsd_jax.data.datasets import custom
from dsd_jax.data.small_sets.make import made_folder
from dsd_jax.data.unreadable_images import without_damaged
from dsd_jax.errors import UserError


@pytest.fixture
def made(tmp_path):
    return made_folder("own", tmp_path)


def damage(folder, *numbers):
    for number in numbers:
        path = folder / "pictures" / f"{number:02d}.jpg"
        path.write_bytes(path.read_bytes()[:700])


def test_all_is_well(made, capfd):
    examples = custom.benchmark(str(made)).load("all")
    assert without_damaged(examples, "own all") is examples
    assert "cannot be read" not in capfd.readouterr().err


def test_damaged_pictures_are_named_and_their_items_left_out(made, capfd):
    damage(made, 3, 17)
    (made / "pictures" / "30.jpg").write_text("no picture")
    # Two items of each picture: one wrong picture is the next item's.
    examples = custom.benchmark(str(made), wrong="pictures", candidates=3).load("all")
    bad = {f"pictures/{name}.jpg" for name in ("03", "17", "30")}
    good = [i for i in range(50) if not bad & set(examples.pictures[i])]
    assert 50 > len(good) > 30
    whole = without_damaged(examples, "own all")
    assert whole[:4] == examples.take(good)[:4]
    (line,) = [x for x in capfd.readouterr().err.splitlines() if "cannot be read," in x]
    out = 50 - len(good)
    assert f"3 of 50 pictures cannot be read, and the {out} of 50 items with them are left" in line
    assert all(name in line for name in bad)


def test_many_are_counted_and_a_few_named(made, capfd):
    damage(made, *range(20))
    without_damaged(custom.benchmark(str(made)).load("all"), "own all")
    err = capfd.readouterr().err
    assert "20 of 50 pictures" in err and err.count("is it complete") == 5 and "; ..." in err


def test_nothing_left(made):
    damage(made, *range(50))
    with pytest.raises(UserError, match="so that none remains: picture .*00.jpg"):
        without_damaged(custom.benchmark(str(made)).load("all"), "own all")


def test_by_default_the_first_damaged_picture_is_fatal_and_named(made):
    damage(made, 3)
    examples = custom.benchmark(str(made)).load("all")
    with pytest.raises(UserError, match="picture .*03.jpg cannot be read"):
        examples.images([key for (key,) in examples.pictures[:10]], 16)
