import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data.datasets import compositional
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError


@pytest.fixture
def sugarcrepe(tmp_path):
    return made_folder("sugarcrepe", tmp_path)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def draw(path, size=(20, 10)):
    """Save an image whose left half is black and right half white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint8)
    pixels[:, size[0] // 2 :] = 255
    Image.fromarray(pixels).save(path)


def load(folder, layout, split="all", **options):
    return compositional.benchmark(str(folder), layout, **options).load(split)


def test_sugarcrepe_is_one_image_with_two_captions_of_seven_kinds(sugarcrepe):
    examples = load(sugarcrepe, "sugarcrepe")
    assert len(Counter(examples.kinds)) == 7 and examples.count == 56
    entry = json.loads((sugarcrepe / "swap_att.json").read_text())
    number, first = next(iter(entry.items()))
    swapped = load(sugarcrepe, "sugarcrepe", "swap_att")
    assert swapped.kinds == ["swap_att"] * 8
    assert swapped.captions[0] == (first["caption"], first["negative_caption"])
    assert swapped.images[0] == (f"val2017/{int(number):012d}.jpg",)
    assert swapped.read_images(swapped.images[0], 16).shape == (1, 16, 16, 3)


def test_annotations_may_be_in_data_and_images_elsewhere(sugarcrepe, tmp_path):
    (sugarcrepe / "data").mkdir()
    for path in sugarcrepe.glob("*.json"):
        path.rename(sugarcrepe / "data" / path.name)
    (tmp_path / "coco").mkdir()
    (sugarcrepe / "val2017").rename(tmp_path / "coco" / "val2017")
    assert load(sugarcrepe, "sugarcrepe", pictures=str(tmp_path / "coco")).count == 56


def test_cola_is_two_images_by_link_with_a_caption_each(tmp_path):
    site = "https://cs-people.bu.edu/array/data/vg_gqa_images"
    entries = [
        [f"{site}/{2 * i}.jpg", f"a {i}", f"{site}/{2 * i + 1}.jpg", f"b {i}"] for i in (1, 2)
    ]
    write(tmp_path / "data" / "COLA_multiobjects_matching_benchmark.json", entries)
    for i in range(2, 6):
        draw(tmp_path / "images" / f"{i}.jpg")
    benchmark = compositional.benchmark(str(tmp_path), "cola")
    assert benchmark.name == "cola" and benchmark.splits == ("all",)
    examples = benchmark.load("all")
    assert examples.captions == [("a 1", "b 1"), ("a 2", "b 2")]
    assert examples.images[1] == ("images/4.jpg", "images/5.jpg")
    write(tmp_path / "data" / "COLA_multiobjects_matching_benchmark.json", [entries[0][:3]])
    with pytest.raises(UserError, match=r"entry 0: .*expected \[link, caption, link, caption\]"):
        benchmark.load("all")


def aro_entry(i, **box):
    box = {"bbox_x": 0, "bbox_y": 0, "bbox_w": 10, "bbox_h": 10} | box
    captions = {"true_caption": f"right {i}", "false_caption": f"wrong {i}"}
    return {"image_id": i, "image_path": f"{i}.jpg"} | captions | box


def test_aro_shows_what_is_in_the_box_alone(tmp_path):
    entries = [aro_entry(1), aro_entry(1, bbox_x=10, bbox_w=99), aro_entry(1, bbox_x=15, bbox_y=-8)]
    write(tmp_path / "visual_genome_relation.json", entries)
    write(tmp_path / "visual_genome_attribution.json", [aro_entry(2, bbox_x=20)])
    for i in (1, 2):
        draw(tmp_path / "images" / f"{i}.jpg")
    examples = load(tmp_path, "aro")
    assert Counter(examples.kinds) == {"relation": 3, "attribution": 1}
    assert examples.captions[0] == ("right 1", "wrong 1")
    keys = [key for (key,) in examples.images]
    black, white, cut = examples.read_images(keys[:3], 8)
    assert black[:, :-1].max() < 30 and white.min() > 225  # JPEG blurs the edge
    assert cut.shape == (8, 8, 3) and cut.min() > 225
    with pytest.raises(UserError, match=r"2.jpg has 20x10 pixels, .* \(20, 0, 10, 10\) .* none of"):
        examples.read_images(keys[3:], 8)
    assert load(tmp_path, "aro", "relation").count == 3
    write(tmp_path / "visual_genome_attribution.json", [aro_entry(2, bbox_x="left")])
    with pytest.raises(UserError, match="entry 0: bbox_x is 'left', expected a number"):
        load(tmp_path, "aro", "attribution")
    assert examples.clusters[:3] == ["1.jpg"] * 3


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999", "1e9", "null", "true"])
def test_boxes_that_are_none(tmp_path, value):
    text = json.dumps([aro_entry(1), aro_entry(2, bbox_w=-77)]).replace("-77", value)
    (tmp_path / "visual_genome_relation.json").write_text(text)
    with pytest.raises(UserError, match="relation.json, entry 1: bbox_w is .*, expected"):
        load(tmp_path, "aro", "relation")
    # A number that nobody asks for may be none: pandas writes such files.
    text = json.dumps([aro_entry(1) | {"score": -77}]).replace("-77", value)
    (tmp_path / "visual_genome_relation.json").write_text(text)
    draw(tmp_path / "images" / "1.jpg")
    assert load(tmp_path, "aro", "relation").count == 1


SAME = {"caption": "a cat", "negative_caption": "a cat", "filename": "1.jpg"}


@pytest.mark.parametrize(
    ("layout", "file", "entry", "message"),
    [
        ("sugarcrepe", "swap_att.json", SAME, "has two captions that are the same, 'a cat'"),
        ("sugarcrepe", "swap_att.json", SAME | {"caption": ""}, "caption is '', expected text"),
        ("sugarcrepe", "swap_att.json", SAME | {"filename": []}, r"filename is \[\], expected"),
        ("cola", "", ["a/1.jpg", "a", "b/1.jpg", "b"], "has two images that are the same, '1.jpg'"),
        ("cola", "", ["a/1.jpg", "a", "b/2.jpg", "a"], "has two captions that are the same, 'a'"),
        ("cola", "", ["a/1.jpg", "a", 2, "b"], r"images\.1 is 2, expected text"),
        ("cola", "", ["a/1.jpg", "a", "b/", "b"], r"images\.1 is '', expected text"),
        ("cola", "", {"a": 1}, r"expected \[link, caption, link, caption\]"),
        ("whatsup", "controlled_images_dataset.json",
         {"image_path": "1.jpg", "caption_options": ["a", "b", "a", "c"]}, "has two captions that"),
        ("whatsup", "controlled_images_dataset.json",
         {"image_path": "1.jpg", "caption_options": ["a", "b", "c"]}, "expected at least 4"),
        ("whatsup", "controlled_images_dataset.json",
         {"image_path": "1.jpg", "caption_options": "abcd"}, "'abcd', expected a list"),
    ],
)  # fmt: skip
def test_entries_that_cannot_be_told_apart_or_are_no_entries(
    tmp_path, layout, file, entry, message
):
    file = file or "COLA_multiobjects_matching_benchmark.json"
    write(tmp_path / file, [entry])
    split = {"sugarcrepe": "swap_att", "whatsup": "controlled_images"}.get(layout, "all")
    with pytest.raises(UserError, match=f"{file}, entry 0: .*{message}"):
        load(tmp_path, layout, split)


def test_whatsup_is_one_image_with_four_captions(tmp_path):
    places = ("left of", "right of", "on", "under")
    for kind in ("controlled_images", "controlled_clevr"):
        entries = []
        for i in range(4):
            captions = [f"A mug {place} a plate" for place in places[i:] + places[:i]]
            entries.append({"image_path": f"data/{kind}/{i}.jpeg", "caption_options": captions})
            draw(tmp_path / "data" / kind / f"{i}.jpeg")
        write(tmp_path / "data" / f"{kind}_dataset.json", entries)
    examples = load(tmp_path, "whatsup")
    assert Counter(examples.kinds) == {"controlled_images": 4, "controlled_clevr": 4}
    assert [texts[0] for texts in examples.captions[:2]] == [
        "A mug left of a plate",
        "A mug right of a plate",
    ]
    assert {len(texts) for texts in examples.captions} == {4}
    assert len(set(examples.clusters)) == 1  # the same four captions
    assert examples.images[0] == ("data/controlled_images/0.jpeg",)
    # As paths start with "data/", the folder may as well be that one.
    assert load(tmp_path / "data", "whatsup", "controlled_clevr").count == 4


def test_all_missing_files_are_in_one_message(sugarcrepe):
    for kind in ("swap_obj", "add_att"):
        (sugarcrepe / f"{kind}.json").unlink()
    message = "lacks data/swap_obj.json or swap_obj.json, from http.*; data/add_att.json or"
    with pytest.raises(UserError, match=message):
        load(sugarcrepe, "sugarcrepe")
    assert load(sugarcrepe, "sugarcrepe", "swap_att").count == 8


def test_files_that_are_not_as_they_should_be(sugarcrepe):
    path = sugarcrepe / "swap_att.json"
    for content, message in (
        ({"7": {"filename": "a.jpg", "caption": "a"}}, "entry 7: negative_caption is missing"),
        (["a"], "entry 0: it is 'a', expected an object"),
        ({}, "holds no items"),
        (7, "holds no list of items"),
        (
            {"7": {"filename": 3, "caption": "a", "negative_caption": "b"}},
            "entry 7: filename is 3, expected text",
        ),
    ):
        write(path, content)
        with pytest.raises(UserError, match=f"swap_att.json.*{message}"):
            load(sugarcrepe, "sugarcrepe", "swap_att")


def test_unknown_layout():
    with pytest.raises(
        UserError, match="layout is 'crepe'; expected sugarcrepe, cola, aro, whatsu"
    ):
        compositional.benchmark(".", "crepe")
