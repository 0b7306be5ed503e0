import csv
import lzma
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from dsd_jax.benchmarks.splitting import SplitRule, apply_split_rule
from dsd_jax.data.datasets import comvg
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError

FIXTURE = Path(__file__).parents[2] / "fixtures" / "comvg" / f"{comvg.CSV}.xz"


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The real csv; its images are empty files, of which most are in VG_100K."""
    folder = tmp_path_factory.mktemp("comvg")
    (folder / comvg.CSV).write_bytes(lzma.decompress(FIXTURE.read_bytes()))
    for name in ("VG_100K", "VG_100K_2"):
        (folder / name).mkdir()
    for entry in rows_of(folder):
        for side in ("pos_image_id", "neg_image_id"):
            place = "VG_100K_2" if int(entry[side]) % 5 == 0 else "VG_100K"
            (folder / place / f"{entry[side]}.jpg").touch()
    return folder


@pytest.fixture
def made(tmp_path):
    return made_folder("comvg", tmp_path)


def rows_of(folder):
    with open(folder / comvg.CSV, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(folder, rows):
    with open(folder / comvg.CSV, "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def test_the_real_csv_is_read_completely(real):
    benchmark = comvg.benchmark(str(real))
    assert benchmark.splits == ("all", "subject", "verb", "object")
    examples = benchmark.load("all")
    counts = {"subject": 1536, "object": 2584, "verb": 1280}
    assert Counter(examples.kinds) == counts and examples.count == 5400
    for kind, count in counts.items():
        assert Counter(benchmark.load(kind).kinds) == {kind: count}
    assert examples.captions[0] == ("a man is sitting at a table",)
    assert examples.images[0] == ("VG_100K/2358258.jpg", "VG_100K/2357994.jpg")
    assert examples.captions[-1] == ("a woman is standing in a pool.",)
    assert [Path(key).stem for key in examples.images[-1]] == ["2350836", "180"]
    assert len({key for pair in examples.images for key in pair}) == 524


def test_the_real_csv_is_as_odd_as_the_docstring_says(real):
    entries = rows_of(real)
    items = [(e["sentence"], e["pos_image_id"], e["neg_image_id"]) for e in entries]
    assert sum(n - 1 for n in Counter(items).values()) == 78
    right = {(sentence, picture) for sentence, picture, _ in items}
    unsolvable = [int(e["id"]) for e in entries if (e["sentence"], e["neg_image_id"]) in right]
    assert unsolvable == [*range(2994, 3002), *range(5167, 5173)]
    assert len({e["pos_image_id"] for e in entries}) == 524
    assert {e["pos_image_id"] for e in entries} == {e["neg_image_id"] for e in entries}


def test_the_real_csv_is_cut_with_no_right_image_in_two_parts(real):
    whole = apply_split_rule(comvg.benchmark(str(real)), SplitRule("apart", 0.05, 100, 3))
    parts = [whole.load(name) for name in ("shots", "validation", "test")]
    assert Counter(parts[0].kinds) == dict.fromkeys(("subject", "verb", "object"), 90)
    assert parts[1].count == 100 and sorted(Counter(parts[1].kinds).values()) == [33, 33, 34]
    assert parts[2].count > 4300
    rights = [set(part.clusters) for part in parts]
    assert not rights[0] & rights[1] and not rights[0] & rights[2] and not rights[1] & rights[2]


def test_images_are_of_the_right_then_of_the_wrong_id(made):
    examples = comvg.benchmark(str(made)).load("all")
    entry = rows_of(made)[3]
    images = examples.read_images(examples.images[3], 32)
    assert images.shape == (2, 32, 32, 3) and images.dtype == np.uint8
    ids = entry["pos_image_id"], entry["neg_image_id"]
    assert [Path(key).stem for key in examples.images[3]] == list(ids)
    assert examples.clusters[3] == ids[0] and examples.kinds[3] == entry["neg_value"]


def test_the_authors_folder_of_images_serves_too(made):
    (made / "vg_concept").mkdir()
    for picture in list(made.glob("VG_100K*/*.jpg")):
        picture.rename(made / "vg_concept" / picture.name)
    assert comvg.benchmark(str(made)).load("all").images[0][0] == "vg_concept/1.jpg"


def test_images_may_be_elsewhere(made, tmp_path):
    elsewhere = tmp_path / "vg"
    elsewhere.mkdir()
    for name in ("VG_100K", "VG_100K_2"):
        (made / name).rename(elsewhere / name)
    examples = comvg.benchmark(str(made), pictures=str(elsewhere)).load("all")
    assert examples.read_images(examples.images[0], 16).shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match="pictures='.*nowhere' is no folder"):
        comvg.benchmark(str(made), pictures=str(tmp_path / "nowhere")).load("all")


def test_more_rows_to_draw_shots_from(made):
    (made / "comvg_train.csv").write_bytes((made / comvg.CSV).read_bytes())
    benchmark = comvg.benchmark(str(made), shots_csv="comvg_train.csv")
    assert "train" in benchmark.splits and benchmark.load("train").count == 60


def test_missing_csv_is_named_with_its_source(tmp_path):
    with pytest.raises(
        UserError, match=r"lacks compositional_visual_genome.csv or .*, from http.*; VG_100K or"
    ):
        comvg.benchmark(str(tmp_path)).load("all")


def test_missing_column_is_named(made):
    write(made, [{k: v for k, v in e.items() if k != "neg_value"} for e in rows_of(made)])
    with pytest.raises(UserError, match=r"csv has no column neg_value; its columns are id, sent"):
        comvg.benchmark(str(made)).load("all")


def test_missing_images_are_counted_and_named(made):
    for name in ("VG_100K/1.jpg", "VG_100K_2/2.jpg", "VG_100K/3.jpg", "VG_100K_2/4.jpg"):
        (made / name).unlink()
    with pytest.raises(UserError, match=r"4 of 60 images are missing \(.*, \.\.\.\): expected"):
        comvg.benchmark(str(made)).load("all")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        (
            "neg_value",
            "colour",
            "line 9: neg_value is 'colour', expected 'subject', 'verb' or 'obj",
        ),
        ("pos_image_id", "12.0", "line 9: pos_image_id is '12.0', expected the number of an im"),
        (
            "pos_image_id",
            "\u00b2",
            "line 9: pos_image_id is '\u00b2', expected the number of an im",
        ),
        ("neg_image_id", "", "line 9: neg_image_id is '', expected"),
        ("neg_image_id", "8", "line 9: has two images that are the same, '8'"),
        ("sentence", " ", "line 9: sentence is ' ', expected text"),
    ],
)
def test_odd_values_are_refused(made, column, value, message):
    rows = rows_of(made)
    rows[7][column] = value
    write(made, rows)
    with pytest.raises(UserError, match=message):
        comvg.benchmark(str(made)).load("all")


def test_a_kind_without_rows_is_an_empty_split(made):
    write(made, [entry for entry in rows_of(made) if entry["neg_value"] != "verb"])
    with pytest.raises(UserError, match="holds no items"):
        comvg.benchmark(str(made)).load("verb")
