import csv
import json
from collections import Counter

import pytest

from dsd_jax.data.datasets import vqa
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError

QUESTIONS = "v2_OpenEnded_mscoco_val2014_questions.json"
ANNOTATIONS = "v2_mscoco_val2014_annotations.json"


@pytest.fixture
def made(tmp_path):
    return made_folder("vqa", tmp_path)


def change(folder, name, edit):
    content = json.loads((folder / name).read_text())
    edit(content)
    (folder / name).write_text(json.dumps(content))


def questions_of(folder):
    content = json.loads((folder / QUESTIONS).read_text())["questions"]
    return {entry["question_id"]: entry for entry in content}


def test_binary_is_one_caption_and_ten_images(made):
    examples = vqa.benchmark(str(made)).load("val/binary")
    assert Counter(examples.kinds) == {"yes/no": 24}
    assert {len(keys) for keys in examples.images} == {10}
    asked = questions_of(made)[1000 * examples.clusters[5]]
    assert examples.captions[5] == (f"{asked['question']} yes",)
    assert examples.images[5][0] == f"val2014/COCO_val2014_{asked['image_id']:012d}.jpg"
    assert examples.read_images(examples.images[5], 16).shape == (10, 16, 16, 3)
    assert all(len(set(keys)) == 10 for keys in examples.images)


def test_other_is_one_image_and_ten_answers(made):
    examples = vqa.benchmark(str(made)).load("val/other")
    assert Counter(examples.kinds) == {"other": 24}
    asked = questions_of(made)[1000 * examples.clusters[7] + 1]["question"]
    assert all(text.startswith(f"{asked} ") for text in examples.captions[7])
    assert {len(set(texts)) for texts in examples.captions} == {10}
    assert {len(keys) for keys in examples.images} == {1}


def test_a_split_is_of_its_own_images(made):
    (key,) = vqa.benchmark(str(made)).load("train/other").images[0]
    assert key.startswith("train2014/COCO_train2014_")


def test_candidates_follow_from_the_seed(made):
    for split in ("val/binary", "val/other"):
        first, again, other = (
            vqa.benchmark(str(made), seed=seed).load(split) for seed in (1, 1, 2)
        )
        assert first[:2] == again[:2] and first[:2] != other[:2]
    assert len(vqa.benchmark(str(made), candidates=4).load("val/other").captions[0]) == 4


def test_no_image_for_which_the_same_question_has_the_same_answer(made):
    def ask_twice(content):
        for entry in content["questions"][::2][:12]:
            entry["question"] = "Is it day?"

    change(made, QUESTIONS, ask_twice)
    examples = vqa.benchmark(str(made)).load("val/binary")
    same = {keys[0] for keys in examples.images[:12]}
    assert len(same) == 12
    for (text,), keys in zip(examples.captions, examples.images, strict=True):
        assert text != "Is it day? yes" or not same & set(keys[1:])


def test_no_answer_that_anybody_gave_and_numbers_for_numbers(made):
    def count(content):
        for i, entry in enumerate(content["annotations"][1::2]):
            entry["answers"] += [{"answer": "maybe"}, {"answer": "3"}]
            entry["multiple_choice_answer"] = str(i) if i < 12 else f"thing-{i}"
            if i < 12:
                entry |= {"answer_type": "number", "question_type": "how many"}

    change(made, ANNOTATIONS, count)
    examples = vqa.benchmark(str(made)).load("val/other")
    assert Counter(examples.kinds) == {"number": 12, "other": 12}
    for i, texts in enumerate(examples.captions[:12]):
        answers = [text.rpartition(" ")[2] for text in texts]
        assert answers[0] == str(i) and set(answers) <= {str(n) for n in range(12)}
        assert "3" not in answers[1:]


def test_wrong_answers_are_to_questions_of_the_same_sort_while_there_are_enough(made):
    def sort(content):
        for i, entry in enumerate(content["annotations"][1::2]):
            entry["question_type"] = "how" if i < 11 else f"what {i}"
            entry |= {"multiple_choice_answer": f"thing-{i}", "answers": [{"answer": "it"}]}

    change(made, ANNOTATIONS, sort)
    examples = vqa.benchmark(str(made)).load("val/other")
    for i, texts in enumerate(examples.captions):
        drawn = {int(text.rpartition("-")[2]) for text in texts}
        assert len(drawn) == 10 and (drawn <= set(range(11))) == (i < 11)


def test_frequent_answers_to_the_same_sort_of_question():
    pairs = [("what", str(n)) for n in range(150) for _ in range(200 - n)] + [("how", "so")]
    found = vqa.frequent(pairs)
    assert found == {"what": [str(n) for n in range(100)], "how": ["so"]}


def test_images_in_a_folder_of_images(made, tmp_path):
    (tmp_path / "coco" / "images").mkdir(parents=True)
    (made / "val2014").rename(tmp_path / "coco" / "images" / "val2014")
    examples = vqa.benchmark(str(made), pictures=str(tmp_path / "coco")).load("val/other")
    assert examples.images[0][0].startswith("images/val2014/")


@pytest.mark.parametrize("name", [QUESTIONS, ANNOTATIONS])
def test_the_first_version_is_refused(made, name):
    change(made, name, lambda content: content["info"].update(version="1.0"))
    with pytest.raises(UserError, match=f"{name} is of version .?1.0.?; expected VQA 2.0"):
        vqa.benchmark(str(made)).load("val/other")
    (made / name).rename(made / name.removeprefix("v2_"))  # as its own files are called
    with pytest.raises(UserError, match="is of version .?1.0.?; expected VQA 2.0"):
        vqa.benchmark(str(made)).load("val/other")


def test_files_of_another_split_or_release(made):
    change(made, QUESTIONS, lambda content: content["questions"].pop())
    change(made, ANNOTATIONS, lambda content: content["annotations"][3].update(answers=None))
    with pytest.raises(UserError, match="annotation 3: answers is None, expected a list"):
        vqa.benchmark(str(made)).load("val/other")
    change(made, ANNOTATIONS, lambda content: content["annotations"][3].update(answers=[]))
    with pytest.raises(UserError, match="answers question 223001, which .* does not ask"):
        vqa.benchmark(str(made)).load("val/other")
    (made / QUESTIONS).write_text((made / QUESTIONS.replace("val", "train")).read_text())
    with pytest.raises(UserError, match="is about .train2014.; expected val2014: has it been"):
        vqa.benchmark(str(made)).load("val/other")


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *((ANNOTATIONS, "image_id", value) for value in ("42", 1.0, -1, None, [1], 10**15, True)),
        *((ANNOTATIONS, "question_id", value) for value in ("7", [1], {})),
        *((ANNOTATIONS, "multiple_choice_answer", value) for value in (None, ["yes"], "\ud83d")),
        *((ANNOTATIONS, "answer_type", value) for value in (None, 7, "")),
        *((ANNOTATIONS, "answers", value) for value in ("yes", {"answer": "yes"}, [{}], [None])),
        *((QUESTIONS, "question", value) for value in (None, " ", ["is it"], "\ud83d")),
        *((QUESTIONS, "question_id", value) for value in ("7", None)),
    ],
)
def test_values_of_other_kinds(made, name, field, value):
    whole = "questions" if name == QUESTIONS else "annotations"
    change(made, name, lambda content: content[whole][3].update({field: value}))
    with pytest.raises(UserError, match=rf"{name}, {whole[:-1]} 3: {field}[.\d\w]* is "):
        vqa.benchmark(str(made)).load("val/binary")


@pytest.mark.parametrize("value", [None, 7, {"a": 1}])
def test_files_without_a_list(made, value):
    change(made, ANNOTATIONS, lambda content: content.update(annotations=value))
    with pytest.raises(UserError, match="annotations is .*, expected a list"):
        vqa.benchmark(str(made)).load("val/binary")
    change(made, QUESTIONS, lambda content: content.update(info=value))
    with pytest.raises(UserError, match="info is .*, expected an object|version None"):
        vqa.benchmark(str(made)).load("val/binary")


def test_missing_files_are_in_one_message(tmp_path):
    with pytest.raises(
        UserError, match=f"lacks {QUESTIONS} or .*, from http.*; {ANNOTATIONS} or .*; images/val"
    ):
        vqa.benchmark(str(tmp_path)).load("val/other")


def test_missing_images_and_an_empty_split(made):
    next((made / "val2014").iterdir()).unlink()
    with pytest.raises(UserError, match="1 of 24 images are missing .*zips/val2014.zip"):
        vqa.benchmark(str(made)).load("val/binary")
    only_binary = lambda content: content.update(annotations=content["annotations"][::2])  # noqa: E731
    change(made, ANNOTATIONS, only_binary)
    with pytest.raises(UserError, match=f"{ANNOTATIONS} holds no items"):
        vqa.benchmark(str(made)).load("val/other")


def test_odd_settings(made):
    with pytest.raises(UserError, match="form is 'v1'; expected official or authors"):
        vqa.benchmark(str(made), form="v1")
    with pytest.raises(UserError, match="candidates is 1; expected 2 or more"):
        vqa.benchmark(str(made), candidates=1)
    with pytest.raises(UserError, match="39 wrong candidates .* other answers"):
        vqa.benchmark(str(made), candidates=40).load("val/other")


def load_authors(folder, split, **options):
    return vqa.benchmark(str(folder), "authors", **options).load(split)


def test_sentences_as_they_are_written(made):
    examples = load_authors(made, "test/other")
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
    every, shots = load_authors(made, "train/other"), load_authors(made, "shots/other")
    assert (every.count, shots.count) == (48, 2)
    assert shots.captions == every.captions[:2]
    assert every.images[0][0].startswith("train2014/COCO_train2014_")


def test_yes_or_no_lines_alone_with_ten_images(made):
    lines = (made / "test.txt").read_text().splitlines()
    picture = lines[0].partition("*")[0]
    twice = f"{picture}*The question is asking about yes or no: is it: so? it is so"
    (made / "test.txt").write_text("\n".join([*lines, twice, ""]))
    examples = load_authors(made, "test/binary", seed=5)
    assert examples.count == 25
    assert examples.captions[-1] == ("is it: so? it is so",)
    assert examples.images[-1][0] == f"val2014/{picture}"
    assert all(len(set(keys)) == 10 for keys in examples.images)
    assert load_authors(made, "test/binary", seed=5).images == examples.images
    assert load_authors(made, "test/binary", seed=6).images != examples.images


def test_no_image_of_which_the_same_is_said(made):
    names = [line.partition("*")[0] for line in (made / "test.txt").read_text().splitlines()]
    said = "The question is asking about yes or no: is it night? it is night."
    lines = [f"{name}*{said if i < 12 else said + str(i)}" for i, name in enumerate(names[::2])]
    (made / "test.txt").write_text("\n".join(lines))
    examples = load_authors(made, "test/binary")
    for keys in examples.images[:12]:
        assert not {f"val2014/{name}" for name in names[:24:2]} & set(keys[1:])


def test_the_name_in_their_code_serves_too(made):
    (made / "test.txt").rename(made / "test3.txt")
    assert load_authors(made, "test/binary").count == 24


@pytest.mark.parametrize("line", ["a.jpg is it?", "a.jpg*is it?", "*"])
def test_other_lines_are_refused(made, line):
    (made / "test.txt").write_text((made / "test.txt").read_text() + line)
    with pytest.raises(UserError, match=r"test.txt, line 49: expected IMAGE\*The question is"):
        load_authors(made, "test/binary")


def test_files_that_are_not_as_they_should_be(made):
    path = made / "vqa_text_test.csv"
    text = path.read_text()
    path.write_text(text.replace(",200,", ",200.0,"))
    with pytest.raises(
        UserError, match="line 2: pos_image_id is '200.0', expected the number of an image"
    ):
        load_authors(made, "test/other")
    path.write_text(text.replace("neg_sentence_9", "neg_sentence_10"))
    with pytest.raises(UserError, match="has no column neg_sentence_9"):
        load_authors(made, "test/other")
    path.unlink()
    with pytest.raises(UserError, match="lacks vqa_text_test.csv or data/vqa_text_test.csv, from"):
        load_authors(made, "test/other")
    (made / "test.txt").write_text("a.jpg*The question is asking about others: b")
    with pytest.raises(UserError, match="test.txt holds no items"):
        load_authors(made, "test/binary")


def test_candidates_are_those_of_the_file(made):
    assert len(load_authors(made, "test/other", candidates=3).captions[0]) == 3
    with pytest.raises(UserError, match="candidates is 11; .*vqa_text_test.csv has 2 to 10"):
        load_authors(made, "test/other", candidates=11)
    with pytest.raises(UserError, match="candidates is 11; .*vqa_text_train.csv has 2 to 10"):
        load_authors(made, "shots/other", candidates=11)
