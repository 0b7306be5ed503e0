import json
import pickle

import pytest

from dsd_jax.benchmarks.splitting import SplitRule, apply_split_rule
from dsd_jax.data.datasets import refcocog
from dsd_jax.data.small_sets import made_folder
from dsd_jax.errors import UserError


@pytest.fixture
def made(tmp_path):
    return made_folder("refcocog", tmp_path)


def refs_of(folder):
    return pickle.loads((folder / "refs(umd).p").read_bytes())


def write(folder, refs):
    # As Python 2 pickled the real file: texts are byte strings, of which one isn't ASCII.
    (folder / "refs(umd).p").write_bytes(pickle.dumps(refs, protocol=0))


def test_official_splits_of_both_divisions(made):
    umd = refcocog.benchmark(str(made))
    assert umd.splits == ("train", "val", "test", "all")
    sizes = {split: umd.load(split).count for split in umd.splits}
    assert sizes == {"train": 12, "val": 14, "test": 26, "all": 52}
    pictures = [set(umd.load(split).clusters) for split in umd.splits[:3]]
    assert len(set.union(*pictures)) == sum(map(len, pictures))
    google = refcocog.benchmark(str(made), split_by="google")
    assert google.splits == ("train", "val", "all") and google.load("val").count == 13


def test_right_sentence_first_and_the_image_of_instances_json(made):
    examples = refcocog.benchmark(str(made)).load("val")
    ref = [ref for ref in refs_of(made) if ref["split"] == "val"][5]
    assert examples.captions[5][0] == ref["sentences"][0]["raw"]
    assert ref["file_name"].count("_") == 3  # with the annotation's number, as no picture is called
    (key,) = examples.images[5]
    assert key == f"images/train2014/COCO_train2014_{ref['image_id']:012d}.jpg"
    assert examples.read_images([key], 16).shape == (1, 16, 16, 3)


def test_every_sentence_of_an_object_is_an_item(made):
    refs = refs_of(made)
    refs[0]["sentences"].append({"sent_id": 999, "raw": "one more", "sent": "", "tokens": []})
    write(made, refs)
    assert refcocog.benchmark(str(made)).load("all").captions[1][0] == "one more"


def test_wrong_sentences_are_of_other_images_and_fixed_by_the_seed(made):
    refs = refs_of(made)
    common = {"sent_id": 500, "raw": "The thing.", "sent": "the thing", "tokens": []}
    for ref in refs[:40:2]:  # said of many pictures, but not the same way
        other = "the thing" if ref["ref_id"] % 4 else "The  thing."
        ref["sentences"] = [
            *ref["sentences"],
            common | {"raw": other, "sent_id": ref["ref_id"] + 500},
        ]
    write(made, refs)
    said = {}
    for ref in refs:
        texts = {" ".join(s["raw"].lower().rstrip(".").split()) for s in ref["sentences"]}
        said[ref["image_id"]] = said.get(ref["image_id"], set()) | texts
    examples = refcocog.benchmark(str(made), seed=3).load("all")
    for (right, *wrong), picture in zip(examples.captions, examples.clusters, strict=True):
        assert len({right, *wrong}) == 10
        plain = {" ".join(text.lower().rstrip(".").split()) for text in wrong}
        assert not plain & said[picture]
    assert refcocog.benchmark(str(made), seed=3).load("all").captions == examples.captions
    other = refcocog.benchmark(str(made), seed=4).load("all")
    assert other.captions != examples.captions
    assert [item[0] for item in other.captions] == [item[0] for item in examples.captions]


def test_the_authors_rule_takes_all_splits_together_in_the_files_order(made):
    benchmark = apply_split_rule(refcocog.benchmark(str(made)), SplitRule("authors", 0.1))
    assert benchmark.splits == ("shots", "test", "all")
    assert benchmark.load("shots").count == 5 and benchmark.load("test").count == 47
    first = [ref["sentences"][0]["raw"] for ref in refs_of(made)[:5]]
    assert [item[0] for item in benchmark.load("shots").captions] == first


def test_python_2_texts_are_read(made):
    lines = [
        b"(lp0", b"(dp1", b"S'image_id'", b"p2", b"I1", b"sS'split'", b"p3", b"S'val'", b"p4",
        b"sS'sentences'", b"p5", b"(lp6", b"(dp7", b"S'sent_id'", b"p8", b"I1",
        b"sS'raw'", b"p9", b"S'a caf\\xc3\\xa9'", b"p10", b"sasa.",
    ]  # fmt: skip
    (made / "refs(umd).p").write_bytes(b"\n".join(lines))
    with pytest.raises(UserError, match="9 wrong candidates are needed, and there are only 0"):
        refcocog.benchmark(str(made)).load("val")
    (sentence,) = refcocog.read_sentences(made / "refs(umd).p", "val")
    assert sentence == (1, "a café", 1)


REF = {"image_id": 1, "split": "val", "sentences": [{"sent_id": 7, "raw": "a"}]}


@pytest.mark.parametrize(
    ("ref", "message"),
    [
        (REF | {"sentences": None}, "sentences is None, expected a list"),
        (REF | {"image_id": [1]}, r"image_id is \[1\], expected a whole number"),
        (REF | {"image_id": "1"}, "image_id is '1', expected a whole number"),
        (REF | {"split": 1}, "split is 1, expected text"),
        (REF | {"sentences": [{"sent_id": -1, "raw": "a"}]}, r"sentences\.0\.sent_id is -1, exp"),
        (REF | {"sentences": [{"sent_id": 7, "raw": " "}]}, r"sentences\.0\.raw is ' ', expected"),
        (
            REF | {"sentences": [{"sent_id": 7, "raw": "\ud83d"}]},
            r".*raw is '\\ud83d', expected",
        ),
        (REF | {"sentences": ["a"]}, r"sentences\.0 is 'a', expected an object"),
        ("a", "it is 'a', expected an object"),
    ],
)
def test_objects_of_other_kinds(made, ref, message):
    (made / "refs(umd).p").write_bytes(pickle.dumps([REF, ref]))
    with pytest.raises(UserError, match=f"object 1: {message}"):
        refcocog.benchmark(str(made)).load("val")


def test_python_2_texts_that_are_no_utf_8(made):
    content = pickle.dumps([REF | {"split": "test"}, REF | {"sentences": [{"raw": "?"}]}], 0)
    (made / "refs(umd).p").write_bytes(content.replace(b"V?", b"S'caf\\xe9'"))
    with pytest.raises(UserError, match="object 1: .*raw is 'caf.*, expected text in Unicode"):
        refcocog.benchmark(str(made)).load("val")


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (None, "images is None, expected a list"),
        ([{"id": 1, "file_name": None}], "image 0: file_name is None, expected text"),
        ([{"id": [1], "file_name": "a"}], r"image 0: id is \[1\], expected a whole number"),
        ([7], "image 0: it is 7, expected an object"),
    ],
)
def test_images_of_other_kinds(made, images, message):
    (made / "instances.json").write_text(json.dumps({"images": images}))
    with pytest.raises(UserError, match=f"instances.json.*{message}"):
        refcocog.benchmark(str(made)).load("val")


def test_all_missing_pieces_are_in_one_message(tmp_path):
    with pytest.raises(
        UserError, match=r"lacks refs\(google\).p, from .*; instances.json, from .*; images/t"
    ):
        refcocog.benchmark(str(tmp_path), split_by="google").load("val")


def test_missing_images_are_named_with_their_source(made):
    (made / "images/train2014/COCO_train2014_000000000001.jpg").unlink()
    with pytest.raises(UserError, match=r"1 of 7 images are missing \(COCO.*train2014.zip"):
        refcocog.benchmark(str(made)).load("val")


def test_instances_of_another_release(made):
    content = json.loads((made / "instances.json").read_text())
    content["images"] = content["images"][3:]
    (made / "instances.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"about image 1 \(3 in all\) that .*instances.json does"):
        refcocog.benchmark(str(made)).load("all")
    (made / "instances.json").write_text("[]")
    with pytest.raises(UserError, match="instances.json: it is .*, expected an object"):
        refcocog.benchmark(str(made)).load("all")


def test_refs_of_another_kind(made):
    write(made, {"refs": []})
    with pytest.raises(UserError, match="holds no list of objects"):
        refcocog.benchmark(str(made)).load("val")
    write(made, [{"image_id": 1}])
    with pytest.raises(UserError, match="object 0: split is missing; sentences is missing"):
        refcocog.benchmark(str(made)).load("val")
    write(made, [{"image_id": 1, "split": "val", "sentences": [{"sent_id": 7, "raw": None}]}])
    with pytest.raises(UserError, match=r"object 0: sentences\.0\.raw is None, expected text"):
        refcocog.benchmark(str(made)).load("val")
    write(made, [ref for ref in refs_of_google(made) if ref["split"] == "train"])
    with pytest.raises(UserError, match="holds no items"):
        refcocog.benchmark(str(made)).load("test")


def refs_of_google(folder):
    return pickle.loads((folder / "refs(google).p").read_bytes())


def test_odd_settings(made):
    with pytest.raises(UserError, match="split_by is 'unc'; expected umd or google"):
        refcocog.benchmark(str(made), split_by="unc")
    with pytest.raises(UserError, match="candidates is 0; expected 2 or more"):
        refcocog.benchmark(str(made), candidates=0)
    with pytest.raises(UserError, match="ask for fewer candidates"):
        refcocog.benchmark(str(made), candidates=1000).load("val")
