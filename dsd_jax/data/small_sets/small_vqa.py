"""A small VQAv2 of emoji scenes, in the official form and in the authors'."""

import csv
import json
from pathlib import Path

from dsd_jax.data.datasets.vqa_authors import BINARY, MARK, WRONG
from dsd_jax.data.small_sets.scene_pairs import nouns, save, triples
from dsd_jax.data.synthetic.scenes import RELATIONS, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

PICTURES = 24  # in each of train2014 and val2014


def make(folder: Path, sprites: Sprites) -> None:
    """Per half 24 pictures with a yes/no question and one for a thing: 48 items to evaluate on."""
    scenes = [t.positive for t in triples(sprites, ("subject", "object"), PICTURES)]
    for half, year in enumerate(("train2014", "val2014")):
        entries = []
        for number, scene in enumerate(scenes[half::2], 100 * (half + 1)):
            save(scene, sprites, folder / year / f"COCO_{year}_{number:012d}.jpg")
            plan = read_plan(scene)
            first, second = nouns(plan, sprites.concepts)
            relation = RELATIONS[plan.relation]
            thing = f"What is {relation} {second}?"
            entries.append((number, 0, f"Is {first} {relation} {second}?", "yes", "yes/no", "is"))
            entries.append((number, 1, thing, first.partition(" ")[2], "other", "what is"))
        write_official(folder, year, entries)
        write_authors(folder, year, entries)


def write_official(folder: Path, year: str, entries: list) -> None:
    """The questions' and the annotations' file."""
    head = {"info": {"version": "2.0", "year": 2017}, "license": {}, "data_subtype": year}
    questions, annotations = [], []
    for picture, place, text, answer, kind, sort in entries:
        number = 1000 * picture + place
        questions.append({"image_id": picture, "question": text, "question_id": number})
        answers = [{"answer": answer, "answer_confidence": "yes", "answer_id": 1}]
        annotations.append(
            {
                "question_id": number,
                "image_id": picture,
                "question_type": sort,
                "answer_type": kind,
                "multiple_choice_answer": answer,
                "answers": answers,
            }
        )
    parts = (("OpenEnded_", "questions", questions), ("", "annotations", annotations))
    for word, name, content in parts:
        path = folder / f"v2_{word}mscoco_{year}_{name}.json"
        path.write_text(json.dumps(head | {name: content}), encoding="utf-8")


def write_authors(folder: Path, year: str, entries: list) -> None:
    """The csv of sentences, and for val2014 the text file."""
    others = [entry for entry in entries if entry[4] == "other"]
    answers = [entry[3] for entry in others]
    name = "vqa_text_train.csv" if year == "train2014" else "vqa_text_test.csv"
    with open(folder / name, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["sentence", "pos_image_id", *WRONG])
        for i, (picture, _, text, answer, *_) in enumerate(others):
            turned = [x for x in answers[i:] + answers[:i] if x != answer][: len(WRONG)]
            table.writerow([f"{text} {answer}", picture, *(f"{text} {wrong}" for wrong in turned)])
    if year == "val2014":
        lines = [
            f"COCO_{year}_{picture:012d}.jpg*"
            + (BINARY if kind == "yes/no" else f"{MARK}others: ")
            + f"{text.lower()} {answer}"
            for picture, _, text, answer, kind, _ in entries
        ]
        (folder / "test.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
