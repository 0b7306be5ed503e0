import csv
import json
from collections import Counter
from pathlib import Path

import pytest

from dsd_jax.data.datasets import custom
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError


@pytest.fixture
def made(tmp_path):
    return made_folder("own", tmp_path)


def lines_of(folder):
    return [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]


def write(folder, lines):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "captions.jsonl").write_text(text)


def write_csv(folder, rows):
    (folder / "captions.jsonl").unlink()
    with open(folder / "captions.csv", "w", newline="", encoding="utf-8-sig") as file:
        csv.writer(file).writerows(rows)


def test_wrong_captions_as_given(made):
    benchmark = custom.benchmark(str(made))
    assert benchmark.splits == ("all",)
    examples = benchmark.load("all")
    line = lines_of(made)[17]
    assert examples.captions[17] == (line["caption"], *line["wrong_captions"])
    assert examples.images[17] == (line["image"],) and examples.kinds[17] == line["kind"]
    assert Counter(examples.kinds)["size"] == 10
    assert examples.read_images([line["image"]], 24).shape == (1, 24, 24, 3)


def test_a_csv_says_the_same(made):
    expected = custom.benchmark(str(made)).load("all")
    rows = [(x["image"], x["caption"], x["wrong_captions"][0], x["kind"]) for x in lines_of(made)]
    write_csv(made, [("image", "caption", "wrong_caption_1", "kind"), *rows])
    assert custom.benchmark(str(made)).load("all")[:4] == expected[:4]


def test_splits_and_wrong_images_of_the_file(made):
    lines = lines_of(made)
    images = [line["image"] for line in lines]
    for i, line in enumerate(lines):
        del line["wrong_captions"]
        line |= {"wrong_images": [images[i - 1], images[i - 2]], "split": "ab"[i % 2]}
    write(made, lines)
    benchmark = custom.benchmark(str(made))
    assert benchmark.splits == ("a", "b")
    examples = benchmark.load("b")
    assert examples.count == 25
    assert examples.images[0] == (images[1], images[0], images[-1])
    assert examples.captions[0] == (lines[1]["caption"],)


def test_names_that_are_numbers(made):
    lines = lines_of(made)
    for i, line in enumerate(lines):
        line |= {"split": i % 2, "kind": 0, "wrong_images": None}
    write(made, lines)
    benchmark = custom.benchmark(str(made))
    assert benchmark.splits == ("0", "1")
    assert Counter(benchmark.load("0").kinds) == {"0": 25}


def test_columns_of_wrong_ones_have_ascii_digits(made):
    rows = [(x["image"], x["caption"], x["wrong_captions"][0], "b") for x in lines_of(made)]
    write_csv(made, [("image", "caption", "wrong_caption_1", "wrong_caption_\u0662"), *rows])
    assert {len(texts) for texts in custom.benchmark(str(made)).load("all").captions} == {2}


@pytest.mark.parametrize("wrong", ["captions", "pictures"])
def test_drawn_candidates_follow_from_the_seed_and_fit_nowhere(made, wrong):
    lines = lines_of(made)
    lines[1]["image"] = lines[0]["image"]  # two captions fit one picture
    lines[3]["caption"] = lines[2]["caption"]  # and two pictures one caption
    write(made, lines)
    right = {(line["image"], line["caption"]) for line in lines}
    every = custom.benchmark(str(made), wrong=wrong, candidates=20, seed=4).load("all")
    assert {len(texts) * len(keys) for texts, keys in zip(*every[:2], strict=True)} == {20}
    for texts, keys in zip(every.captions, every.images, strict=True):
        fitting = [(key, text) in right for text in texts for key in keys]
        assert fitting == [True] + [False] * 19
        assert len({*texts, *keys}) == 21
    again = custom.benchmark(str(made), wrong=wrong, candidates=20, seed=4).load("all")
    assert again[:2] == every[:2]
    assert (
        custom.benchmark(str(made), wrong=wrong, candidates=20, seed=5).load("all")[:2] != every[:2]
    )


def test_more_candidates_than_there_are(made):
    with pytest.raises(UserError, match="59 wrong candidates are needed, .* only 49 other capt"):
        custom.benchmark(str(made), wrong="captions", candidates=60).load("all")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"wrong_captions": []}, "rows have 0\\+0, 1\\+0 wrong captions \\+ images"),
        ({"wrong_images": ["pictures/01.jpg"]}, "rows have 1\\+0, 1\\+1 wrong"),
        ({"wrong_captions": "a cat"}, "line 3: wrong_captions is 'a cat', expected a list"),
        ({"caption": " "}, "line 3: caption is ' ', expected text that is not empty"),
        ({"caption": 7}, "line 3: caption is 7, expected text"),
        ({"caption": "a \ud83d"}, r"line 3: caption is 'a \\ud83d', expected text in Unicode"),
        ({"image": ["a"]}, r"line 3: image is \['a'\], expected text"),
        ({"wrong_captions": 5}, "line 3: wrong_captions is 5, expected a list"),
        ({"wrong_captions": {"note": 1}}, "line 3: wrong_captions is {'note': 1}, expected a list"),
        ({"wrong_captions": ["a", 5]}, r"line 3: wrong_captions\.1 is 5, expected text"),
        (
            {"caption": "a", "wrong_captions": ["a"]},
            r"\('a'\) is the right one too",
        ),
        ({"split": "../a"}, "line 3: split is '../a'"),
        ({"split": "a" * 300}, "line 3: split is 'aaa.*, expected a name"),
        ({"kind": [1]}, "line 3: kind is .*, expected text"),
        ({"image": "pictures/no.jpg"}, "1 of 50 images are missing \\(pictures/no.jpg\\)"),
    ],
)
def test_odd_rows_are_named(made, change, message):
    lines = lines_of(made)
    lines[2] |= change
    write(made, lines)
    with pytest.raises(UserError, match=message):
        custom.benchmark(str(made)).load("all")


@pytest.mark.parametrize("wrong", [{"wrong_captions": []}, {"wrong_images": ["pictures/no.jpg"]}])
def test_all_rows_without_wrong_candidates_or_with_two_sorts(made, wrong):
    write(made, [line | wrong for line in lines_of(made)])
    with pytest.raises(UserError, match=r"rows have (0\+0|1\+1) wrong captions \+ images; give"):
        custom.benchmark(str(made)).load("all")
    assert custom.benchmark(str(made), wrong="captions", candidates=2).load("all").count == 50


def test_files_that_are_not_as_they_should_be(made, tmp_path):
    write(made, [*lines_of(made)[:3], "{broken"])
    with pytest.raises(UserError, match="jsonl, line 4 is not JSON"):
        custom.benchmark(str(made))
    write(made, [{"image": "a.jpg"}])
    with pytest.raises(UserError, match="line 1: caption is missing"):
        custom.benchmark(str(made))
    write(made, [""])
    with pytest.raises(UserError, match="holds no items"):
        custom.benchmark(str(made))
    write_csv(made, [("image", "text")])
    with pytest.raises(UserError, match="has no column caption; its columns are image, text"):
        custom.benchmark(str(made))
    with pytest.raises(UserError, match="has no captions.jsonl or captions.csv"):
        custom.benchmark(str(Path(tmp_path)))


def test_odd_settings(made):
    with pytest.raises(UserError, match="wrong is 'none'; expected given, captions, pictures"):
        custom.benchmark(str(made), wrong="none")
    with pytest.raises(UserError, match="candidates is 1; expected 2 or more"):
        custom.benchmark(str(made), wrong="captions", candidates=1)


def test_a_misspelt_column_of_wrong_candidates_is_told(tmp_path):
    (tmp_path / "captions.csv").write_text("image,caption,wrong_caption\na.png,a cat,a dog\n")
    with pytest.raises(UserError, match="column 'wrong_caption' is not known; .* wrong_caption_1"):
        custom.benchmark(str(tmp_path)).load("all")
