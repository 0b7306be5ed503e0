"""What visitors give to the demo: within limits it comes in, beyond them a sentence says why."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.errors import UserError
from dsd_jax.web import demo_inputs
from dsd_jax.web.demo_inputs import (
    check_timesteps,
    pairing,
    read_captions,
    read_pair_captions,
    read_upload,
    read_uploads,
)


@pytest.fixture
def upload(tmp_path):
    """Return a function that stores an image and returns it as Gradio gives uploads."""

    def store(name="photo.png", size=(40, 30)):
        path = tmp_path / name
        Image.fromarray(np.zeros((*size[::-1], 3), np.uint8)).save(path)
        return {"path": str(path), "orig_name": name}

    return store


def test_an_upload_is_an_image_of_limited_size(upload):
    assert read_upload(upload()).size == (40, 30)
    assert read_upload(upload("large.png", (3000, 1500))).size == (1024, 512)


@pytest.mark.parametrize("nothing", [None, {}, {"path": None}])
def test_no_upload_is_said(nothing):
    with pytest.raises(UserError, match="no picture; drop one"):
        read_upload(nothing)


def test_an_upload_that_is_no_image_is_called_by_the_name_it_had(tmp_path):
    (tmp_path / "stored").write_text("not an image")
    with pytest.raises(UserError, match=r"'notes\.png'") as caught:
        read_upload({"path": str(tmp_path / "stored"), "orig_name": "notes.png"})
    assert str(tmp_path) not in str(caught.value)


def test_an_upload_that_is_too_large_is_not_read(upload, monkeypatch):
    monkeypatch.setattr(demo_inputs, "MOST_MEGABYTES", 0)
    with pytest.raises(UserError, match=r"'photo\.png' is larger than 0 MB"):
        read_upload(upload())


def test_an_upload_that_is_deleted_is_asked_for_again(upload, tmp_path):
    stored = upload()
    (tmp_path / "photo.png").unlink()
    with pytest.raises(UserError, match=r"'photo\.png' is deleted.*give it again"):
        read_upload(stored)


@pytest.mark.parametrize("count", [0, 3, 65])
def test_pictures_to_learn_from_are_counted_before_they_are_read(count):
    with pytest.raises(UserError, match="give 4 to 64"):
        read_uploads([{"image": {"path": "/nowhere"}}] * count)


def test_pictures_to_learn_from_are_read_in_order(upload):
    uploads = [{"image": upload(f"{i}.png", (20 + i, 20))} for i in range(4)]
    assert [image.width for image in read_uploads(uploads)] == [20, 21, 22, 23]


def test_captions_are_lines_none_empty_or_twice():
    assert read_captions(" a cat \n\na dog\r\na cat\n") == ["a cat", "a dog"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (None, "no caption"),
        ("  \n ", "no caption"),
        ("\n".join(map(str, range(13))), "There are 13 captions; 12 are ranked"),
        ("a" * 501, "has 501 letters"),
    ],
)
def test_captions_beyond_the_limits_are_refused(text, sentence):
    with pytest.raises(UserError, match=sentence):
        read_captions(text)


def test_each_picture_has_a_caption_and_equal_ones_stay():
    assert read_pair_captions("a cat\na cat", 2, "captions that fit") == ["a cat", "a cat"]
    with pytest.raises(UserError, match="3 pictures and 2 captions that fit; write one line"):
        read_pair_captions("a cat\na cat", 3, "captions that fit")


@pytest.mark.parametrize("value", [0, 101, None, "many", True, float("nan")])
def test_timesteps_out_of_range_are_refused(value):
    assert check_timesteps(10.0) == 10
    with pytest.raises(UserError, match="from 1 to 100"):
        check_timesteps(value)


@pytest.mark.parametrize(
    ("counts", "ending"),
    [
        ((0, 0, 0), "teach it something."),
        ((8, 7, 0), "8 pictures, 7 captions: write one line for each picture."),
        ((8, 8, 3), "write one that does not fit for each picture, or none."),
        ((2, 2, 0), "give 4 to 64 pictures."),
        ((1, 0, 0), "1 picture, 0 captions: write one line for each picture."),
        ((8, 8, 8), "8 pictures, 8 captions, 8 that do not fit: ready."),
    ],
)
def test_what_pairs_lack_is_said(counts, ending):
    assert pairing(*counts).endswith(ending)
