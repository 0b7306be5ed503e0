"""Small data sets of emoji scenes in the layouts of the public ones, to try the readers on.

`made_folder` makes a data set once, into a cache folder; a function `_make_NAME` writes its files.
"""

import csv
import io
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from dsd_jax.data.datasets.compositional import SUGARCREPE_KINDS
from dsd_jax.data.datasets.comvg import CSV
from dsd_jax.data.datasets.vqa import BINARY_MARK, LINE_MARK, WRONG_COLUMNS
from dsd_jax.data.prepared_folder import prepared
from dsd_jax.data.synthetic.scenes import (
    RELATIONS,
    Plan,
    Scene,
    describe,
    draw,
    lay_out,
    read_plan,
    sample_plan,
)
from dsd_jax.data.synthetic.sprites import Sprites, load_sprites
from dsd_jax.data.synthetic.triples import ARTISTS, KINDS, Triple, make_triples
from dsd_jax.errors import UserError

VERSION = "1"  # raise it whenever a made file changes: folders of earlier ones are left alone
SEED = 8
JPEG_QUALITY = 95


def made_folder(name: str, data_dir: Path) -> Path:
    """Return the folder of a made data set, written first if it isn't there.

    Args:
        name: a key of `MAKERS`.
        data_dir: what made data sets are kept in.

    Raises:
        UserError: there is none of that name, or it is not possible to write there.
    """
    if name not in MAKERS:
        raise UserError(f"There is no made data set '{name}'; expected {', '.join(MAKERS)}.")

    def write(temporary: Path) -> Path:
        folder = temporary / "folder"
        folder.mkdir()
        MAKERS[name](folder, load_sprites())
        return folder

    return prepared(data_dir, Path("made") / name / VERSION, write)


def _triples(sprites: Sprites, kinds: Sequence[str], count: int) -> Iterator[Triple]:
    """Yield items by artists that the bundled model knows, `count` of each kind."""
    left = dict.fromkeys(kinds, count)
    for triple in make_triples("seen-artists", "validation", sprites.concepts):
        if left.get(triple.kind):
            left[triple.kind] -= 1
            yield triple
        if not any(left.values()):
            return


def _caption(scene: Scene, sprites: Sprites) -> str:
    """Return the caption that names everything in a scene."""
    return describe(read_plan(scene), sprites.concepts)


def _nouns(plan: Plan, concepts: tuple[str, ...]) -> list[str]:
    """Return the nouns of the things, with articles and without sizes."""
    lone = (
        Plan((concept,), (style,), (size,), None, plan.background)
        for concept, style, size in zip(*plan[:3], strict=True)
    )
    return [describe(thing, concepts, (False,), False) for thing in lone]


def _save(scene: Scene, sprites: Sprites, path: Path) -> None:
    """Write the image as a JPEG or PNG, as the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_encode(scene, sprites, "png" if path.suffix == ".png" else "jpeg"))


def _encode(scene: Scene, sprites: Sprites, form: str) -> bytes:
    """Return the image as a file holds it; colors of a JPEG are kept at full resolution."""
    buffer = io.BytesIO()
    options = {} if form == "png" else {"quality": JPEG_QUALITY, "subsampling": 0}
    Image.fromarray(draw(scene, sprites)).save(buffer, form, **options)
    return buffer.getvalue()


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(header)
        table.writerows(rows)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")


def _make_classification(folder: Path, sprites: Sprites) -> None:
    """Write 50 images of one thing each, in folders that are called like it."""
    for concept, name in list(enumerate(sprites.concepts))[:10]:
        for number in range(5):
            rng = np.random.default_rng([SEED, concept, number])
            pairs = [(concept, concept)]
            plan = sample_plan(rng, pairs, ARTISTS["seen-artists"], single=1)
            path = folder / name.replace(" ", "_") / f"{number}.jpg"
            _save(lay_out(rng, plan), sprites, path)


def _make_comvg(folder: Path, sprites: Sprites) -> None:
    """Write 60 items: a sentence, and two images that differ in one thing.

    Each of a pair of images is once the right one; odd numbers of images are in VG_100K, even ones
    in VG_100K_2.
    """
    values = {"subject": "subject", "relation": "verb", "object": "object"}
    rows = []
    for index, triple in enumerate(_triples(sprites, tuple(values), 10)):
        pair = [2 * index + 1, 2 * index + 2]
        scenes = [triple.positive, triple.negative]
        for name, scene in zip(pair, scenes, strict=True):
            _save(scene, sprites, folder / f"VG_100K{'' if name % 2 else '_2'}" / f"{name}.jpg")
        for right in (0, 1):
            rows.append(
                [
                    len(rows) + 1,
                    f"{_caption(scenes[right], sprites)}.",
                    ",".join(_triplet(scenes[right], sprites)),
                    tuple(_triplet(scenes[1 - right], sprites)),
                    pair[right],
                    pair[1 - right],
                    values[triple.kind],
                ]
            )
    header = ["id", "sentence", "pos_triplet", "neg_triplet"]
    _write_csv(folder / CSV, [*header, "pos_image_id", "neg_image_id", "neg_value"], rows)


def _triplet(scene: Scene, sprites: Sprites) -> list[str]:
    """Return subject, verb and object; the relation stands for the verb."""
    plan = read_plan(scene)
    assert plan.relation is not None
    first, second = _nouns(plan, sprites.concepts)
    return [first, RELATIONS[plan.relation], second]


def _make_custom(folder: Path, sprites: Sprites) -> None:
    """Write 50 images, each with its caption and a wrong one, as people would make their own."""
    lines = []
    for index, triple in enumerate(_triples(sprites, KINDS, 10)):
        image = f"pictures/{index:02d}.jpg"
        _save(triple.positive, sprites, folder / image)
        line = {
            "image": image,
            "caption": _caption(triple.positive, sprites),
            "wrong_captions": [_caption(triple.negative, sprites)],
            "kind": triple.kind,
        }
        lines.append(json.dumps(line))
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make_refcocog(folder: Path, sprites: Sprites) -> None:
    """Write 52 items of 26 images, each thing with a sentence, in both files of refs.

    As in the public one, refs are Python 2's.
    """
    splits = ("train", "val", "test", "test")  # in turns
    refs, images, annotations = [], [], []
    for number, triple in enumerate(_triples(sprites, ("subject", "object"), 13), 1):
        name = f"COCO_train2014_{number:012d}.jpg"
        _save(triple.positive, sprites, folder / "images" / "train2014" / name)
        images.append({"id": number, "file_name": name, "height": 64, "width": 64})
        plan = read_plan(triple.positive)
        for thing in range(2):
            ref, annotation = len(refs), 1000 + 2 * number + thing
            annotations.append({"id": annotation, "image_id": number, "category_id": 1})
            text = describe(plan, sprites.concepts, first=thing)
            sentence = {"sent_id": ref, "raw": text, "sent": text, "tokens": text.split()}
            refs.append(
                {
                    "ref_id": ref,
                    "ann_id": annotation,
                    "image_id": number,
                    "category_id": plan.concepts[thing],
                    "file_name": f"COCO_train2014_{number:012d}_{annotation}.jpg",
                    "split": splits[number % len(splits)],
                    "sent_ids": [ref],
                    "sentences": [sentence],
                }
            )
    google = [ref | {"split": "val" if ref["ref_id"] % 4 == 0 else "train"} for ref in refs]
    for split_by, content in (("umd", refs), ("google", google)):
        (folder / f"refs({split_by}).p").write_bytes(pickle.dumps(content, protocol=0))
    whole = {"images": images, "annotations": annotations, "categories": []}
    _write_json(folder / "instances.json", whole)


def _make_sugarcrepe(folder: Path, sprites: Sprites) -> None:
    """Write 40 images, each with its caption and one with a thing replaced.

    The entries about a size, and those about a background, are also those of the two kinds with
    something added.
    """
    kinds = {"subject": "replace_obj", "object": "swap_obj", "relation": "replace_rel"}
    kinds |= {"size": "replace_att", "background": "swap_att"}
    added = {"size": "add_att", "background": "add_obj"}
    files: dict[str, dict] = {kind: {} for kind in SUGARCREPE_KINDS}
    for index, triple in enumerate(_triples(sprites, tuple(kinds), 8)):
        image = f"{index:012d}.jpg"
        _save(triple.positive, sprites, folder / "val2017" / image)
        captions = [_caption(scene, sprites) for scene in (triple.positive, triple.negative)]
        entry = {"filename": image, "caption": captions[0], "negative_caption": captions[1]}
        files[kinds[triple.kind]][str(index)] = entry
        if triple.kind in added:
            files[added[triple.kind]][str(index)] = entry
    for kind, entries in files.items():
        _write_json(folder / f"{kind}.json", entries)


class _VQAEntry(NamedTuple):
    image: int
    place: int  # of the question among those of its image
    question: str
    answer: str
    answer_type: str
    question_type: str


def _make_vqa(folder: Path, sprites: Sprites) -> None:
    """Write 24 images for each of train2014 and val2014, in the official form and in the authors'.

    Each has a yes/no question and one for a thing.
    """
    scenes = [triple.positive for triple in _triples(sprites, ("subject", "object"), 24)]
    for half, year in enumerate(("train2014", "val2014")):
        entries = []
        for number, scene in enumerate(scenes[half::2], 100 * (half + 1)):
            _save(scene, sprites, folder / year / f"COCO_{year}_{number:012d}.jpg")
            first, relation, second = _triplet(scene, sprites)
            question, thing = f"Is {first} {relation} {second}?", first.partition(" ")[2]
            entries.append(_VQAEntry(number, 0, question, "yes", "yes/no", "is"))
            question = f"What is {relation} {second}?"
            entries.append(_VQAEntry(number, 1, question, thing, "other", "what is"))
        _write_official_vqa(folder, year, entries)
        _write_authors_vqa(folder, year, entries)


def _write_official_vqa(folder: Path, year: str, entries: Sequence[_VQAEntry]) -> None:
    head = {"info": {"version": "2.0", "year": 2017}, "license": {}, "data_subtype": year}
    questions, annotations = [], []
    for entry in entries:
        number = 1000 * entry.image + entry.place
        questions.append(
            {"image_id": entry.image, "question": entry.question, "question_id": number}
        )
        answers = [{"answer": entry.answer, "answer_confidence": "yes", "answer_id": 1}]
        annotations.append(
            {
                "question_id": number,
                "image_id": entry.image,
                "question_type": entry.question_type,
                "answer_type": entry.answer_type,
                "multiple_choice_answer": entry.answer,
                "answers": answers,
            }
        )
    _write_json(
        folder / f"v2_OpenEnded_mscoco_{year}_questions.json", head | {"questions": questions}
    )
    _write_json(folder / f"v2_mscoco_{year}_annotations.json", head | {"annotations": annotations})


def _write_authors_vqa(folder: Path, year: str, entries: Sequence[_VQAEntry]) -> None:
    """Write the csv of sentences, and for val2014 the text file."""
    others = [entry for entry in entries if entry.answer_type == "other"]
    answers = [entry.answer for entry in others]
    rows = []
    for i, entry in enumerate(others):
        wrong = [x for x in answers[i:] + answers[:i] if x != entry.answer][: len(WRONG_COLUMNS)]
        sentences = [f"{entry.question} {answer}" for answer in (entry.answer, *wrong)]
        rows.append([sentences[0], entry.image, *sentences[1:]])
    name = "vqa_text_train.csv" if year == "train2014" else "vqa_text_test.csv"
    _write_csv(folder / name, ["sentence", "pos_image_id", *WRONG_COLUMNS], rows)
    if year == "val2014":
        lines = [
            f"COCO_{year}_{entry.image:012d}.jpg*"
            + (BINARY_MARK if entry.answer_type == "yes/no" else f"{LINE_MARK}others: ")
            + f"{entry.question.lower()} {entry.answer}"
            for entry in entries
        ]
        (folder / "test.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _make_winoground(folder: Path, sprites: Sprites) -> None:
    """Write 48 items in the parquet layout: in 32 two things change places, in 16 the relation."""
    import pyarrow
    import pyarrow.parquet

    tags = {"subject": "Object", "object": "Object", "relation": "Relation"}
    rows = []
    for index, triple in enumerate(_triples(sprites, tuple(tags), 16)):
        first = triple.positive
        second = triple.negative if triple.kind == "relation" else _swapped(first, index)
        row: dict[str, Any] = {"id": index}
        for i, scene in enumerate((first, second)):
            name = f"ex_{index}_img_{i}.png"
            row[f"image_{i}"] = {"bytes": _encode(scene, sprites, "png"), "path": name}
            row[f"caption_{i}"] = describe(read_plan(scene), sprites.concepts, (False, False))
        row |= {"tag": "Noun", "secondary_tag": "", "num_main_preds": 1}
        rows.append(row | {"collapsed_tag": tags[triple.kind]})
    (folder / "data").mkdir(parents=True)
    path = folder / "data" / "test-00000-of-00001.parquet"
    # A reader gets a group of rows at once.
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=10)


def _swapped(scene: Scene, index: int) -> Scene:
    """Return a scene in which the two things have changed roles: said in the same words."""
    plan = read_plan(scene)
    turned = plan._replace(concepts=plan.concepts[::-1], styles=plan.styles[::-1])
    return lay_out(np.random.default_rng([SEED, index]), turned)


MAKERS: dict[str, Callable[[Path, Sprites], None]] = {
    "comvg": _make_comvg,
    "refcocog": _make_refcocog,
    "vqa": _make_vqa,
    "winoground": _make_winoground,
    "sugarcrepe": _make_sugarcrepe,
    "classify": _make_classification,
    "own": _make_custom,
}
