"""Pairs in memory become items, with what fits them first; mistakes are told by their place."""

import numpy as np
import pytest
from PIL import Image

from dsd_jax.data.given_pairs import DRAWN, given_examples
from dsd_jax.errors import UserError

RED, BLUE, GREEN = (
    np.full((16, 16, 3), color, np.uint8) for color in ((255, 0, 0), (0, 0, 255), (0, 255, 0))
)
IMAGES, CAPTIONS = [RED, BLUE, GREEN], ["a red one", "a blue one", "a green one"]


def refusal(*arguments, **options) -> str:
    with pytest.raises(UserError) as error:
        given_examples(*arguments, **options)
    return str(error.value)


def test_wrong_captions_are_drawn_from_the_other_pairs():
    examples = given_examples(IMAGES, CAPTIONS)
    assert [captions[0] for captions in examples.captions] == CAPTIONS
    assert all(set(captions) == set(CAPTIONS) for captions in examples.captions)
    assert all(len(keys) == 1 for keys in examples.images)
    many = [f"number {i}" for i in range(20)]
    images = [np.full((8, 8, 3), i, np.uint8) for i in range(20)]
    examples = given_examples(images, many, seed=3)
    assert all(len(set(captions)) == 1 + DRAWN for captions in examples.captions)
    assert examples.captions == given_examples(images, many, seed=3).captions
    assert examples.captions != given_examples(images, many, seed=4).captions


def test_a_caption_of_the_same_image_is_no_wrong_one(tmp_path):
    file = tmp_path / "red.png"
    Image.fromarray(RED).save(file)
    images = [RED, RED.copy(), BLUE, Image.open(file), Image.fromarray(RED)]
    captions = ["a red one", "warm", "a blue one", "from a file", "the same"]
    examples = given_examples(images, captions)
    assert examples.clusters[0] == examples.clusters[1] != examples.clusters[2]
    assert examples.clusters[3] == examples.clusters[4]  # PIL images by their pixels
    assert "warm" not in examples.captions[0] and "a red one" not in examples.captions[1]


def test_images_of_every_kind_are_read(tmp_path):
    file = tmp_path / "red.png"
    Image.fromarray(RED).save(file)
    for image in (RED, file, str(file), Image.fromarray(RED)):
        examples = given_examples([image, BLUE], CAPTIONS[:2])
        pixels = examples.read_images(examples.images[0], 8)
        np.testing.assert_array_equal(pixels, np.broadcast_to(RED[:8, :8], (1, 8, 8, 3)))


def test_given_captions_and_given_images(tmp_path):
    examples = given_examples(IMAGES, CAPTIONS, [["x", "y"], ["z", "x"], ["y", "z"]])
    assert examples.captions[0] == ("a red one", "x", "y")
    examples = given_examples(IMAGES, CAPTIONS, ["x.y", "z", "cat.jpg is a name I like"])
    assert examples.captions[0] == ("a red one", "x.y")
    file = tmp_path / "blue.png"
    Image.fromarray(BLUE).save(file)
    examples = given_examples(IMAGES, CAPTIONS, [str(file), GREEN, file])
    assert [len(keys) for keys in examples.images] == [2, 2, 2]
    np.testing.assert_array_equal(examples.read_images(examples.images[0][1:], 16)[0], BLUE)


def test_mistakes_are_told():
    assert refusal(IMAGES, CAPTIONS[:2]) == (
        "there are 3 images and 2 captions; give one caption for each image, captions[i] for "
        "images[i]."
    )
    assert "put it in a list" in refusal(RED, ["a red one"])
    assert "images is empty" in refusal([], [])
    assert "images[1] is given as int" in refusal([RED, 7], CAPTIONS[:2])
    assert "wrong has 2 entries and there are 3 pairs" in refusal(IMAGES, CAPTIONS, ["x", "y"])
    assert "wrong has 1 entries" in refusal(IMAGES, CAPTIONS, "x")
    assert "wrong[1] ('a blue one')" in refusal(IMAGES, CAPTIONS, ["x", "a blue one", "y"])
    assert "wrong[2] ('a green one')" in refusal(IMAGES, CAPTIONS, [BLUE, GREEN, GREEN.copy()])
    assert "wrong[0] is 'no.png', and there is no such file" in refusal(
        IMAGES, CAPTIONS, ["no.png", "x", "y"]
    )
    for uneven in (["x", ["y", "z"], "x"], ["x", GREEN, "y"], [["x", BLUE[:9]]] * 3, [[]] * 3):
        assert "give equally many of one sort" in refusal(IMAGES, CAPTIONS, uneven)
    assert "an image has all captions" in refusal(IMAGES, ["the same"] * 3)


def test_a_damaged_image_is_told_by_its_place(tmp_path):
    file = tmp_path / "no.png"
    file.write_bytes(b"nothing")
    examples = given_examples([RED, file], CAPTIONS[:2])
    with pytest.raises(UserError, match=r"images\[1\]: .*no\.png is not an image"):
        examples.read_images(examples.images[1], 8)
