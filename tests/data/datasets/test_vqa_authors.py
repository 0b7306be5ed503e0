import csv

import pytest

from dsd_jax.data.datasets import vqa
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError


@pytest.fixture
def made(tmp_path):
    return made_folder("vqa", tmp_path)


def load(folder, split, **options):
    return vqa.benchmark(str(folder), "authors", **options).load(split)


def test_sentences_as_they_are_written(made):
    examples = load(made, "test/other")
    with open(made / "vqa_text_test.csv", newline="", encoding="utf-8") as file:
        row = list(csv.DictReader(file))[9]
    wrong = [row[f"neg_sentence_{i}"] for i in range(1, 10)]
    assert examples.captions[9] == (row["sentence"], *wrong)
    assert examples.images[9] == (f"val2014/COCO_val2014_{int(row['pos_image_id']):012d}.jpg",)
    assert examples.read_images(examples.images[9], 16).shape == (1, 16, 16, 3)
    assert examples.clusters[9] == row["pos_image_id"]


def test_shots_are_the_first_twentieth(made):
    path = made / "vqa_text_train.csv"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, *lines, *lines]))
    every, shots = load(made, "train/other"), load(made, "shots/other")
    assert (every.count, shots.count) == (48, 2)
    assert shots.captions == every.captions[:2]
    assert every.images[0][0].startswith("train2014/COCO_train2014_")


def test_yes_or_no_lines_alone_with_ten_pictures(made):
    lines = (made / "test.txt").read_text().splitlines()
    picture = lines[0].partition("*")[0]
    twice = f"{picture}*The question is asking about yes or no: is it: so? it is so"
    (made / "test.txt").write_text("\n".join([*lines, twice, ""]))
    examples = load(made, "test/binary", seed=5)
    assert examples.count == 25
    assert examples.captions[-1] == ("is it: so? it is so",)
    assert examples.images[-1][0] == f"val2014/{picture}"
    assert all(len(set(keys)) == 10 for keys in examples.images)
    assert load(made, "test/binary", seed=5).images == examples.images
    assert load(made, "test/binary", seed=6).images != examples.images


def test_no_picture_of_which_the_same_is_said(made):
    names = [line.partition("*")[0] for line in (made / "test.txt").read_text().splitlines()]
    said = "The question is asking about yes or no: is it night? it is night."
    lines = [f"{name}*{said if i < 12 else said + str(i)}" for i, name in enumerate(names[::2])]
    (made / "test.txt").write_text("\n".join(lines))
    examples = load(made, "test/binary")
    for keys in examples.images[:12]:
        assert not {f"val2014/{name}" for name in names[:24:2]} & set(keys[1:])


def test_the_name_in_their_code_serves_too(made):
    (made / "test.txt").rename(made / "test3.txt")
    assert load(made, "test/binary").count == 24


@pytest.mark.parametrize("line", ["a.jpg is it?", "a.jpg*is it?", "*"])
def test_other_lines_are_refused(made, line):
    (made / "test.txt").write_text((made / "test.txt").read_text() + line)
    with pytest.raises(UserError, match=r"test.txt, line 49: expected IMAGE\*The question is"):
        load(made, "test/binary")


def test_files_that_are_not_as_they_should_be(made):
    path = made / "vqa_text_test.csv"
    text = path.read_text()
    path.write_text(text.replace(",200,", ",200.0,"))
    with pytest.raises(
        UserError, match="line 2: pos_image_id is '200.0', expected the number of an image"
    ):
        load(made, "test/other")
    path.write_text(text.replace("neg_sentence_9", "neg_sentence_10"))
    with pytest.raises(UserError, match="has no column neg_sentence_9"):
        load(made, "test/other")
    path.unlink()
    with pytest.raises(UserError, match="lacks vqa_text_test.csv or data/vqa_text_test.csv, from"):
        load(made, "test/other")
    (made / "test.txt").write_text("a.jpg*The question is asking about others: b")
    with pytest.raises(UserError, match="test.txt holds no items"):
        load(made, "test/binary")


def test_candidates_are_those_of_the_file(made):
    assert len(load(made, "test/other", candidates=3).captions[0]) == 3
    with pytest.raises(UserError, match="candidates is 11; .*vqa_text_test.csv has 2 to 10"):
        load(made, "test/other", candidates=11)
    with pytest.raises(UserError, match="candidates is 11; .*vqa_text_train.csv has 2 to 10"):
        load(made, "shots/other", candidates=11)
