"""Tables of scores fit a terminal."""

import numpy as np

from dsd_jax.matching.score_table import score_blocks

LONG = "a cat that sits " + "very " * 20 + "quietly"


def test_lines_fit_80_columns_however_many_images():
    rng = np.random.default_rng(0)
    for images in (1, 2, 5, 12):
        names = [f"some-photograph-{i}.jpeg" for i in range(images)]
        blocks = score_blocks(rng.normal(size=(images, 2)), [LONG, "a dog"], names)
        lines = [line for block in blocks for line in block.splitlines()]
        assert max(map(len, lines)) <= 80
        assert sum(line.count(".jpeg") for line in lines) == images


def test_an_image_with_a_very_long_name_has_a_block_of_its_own():
    blocks = score_blocks(np.zeros((2, 1)), ["a cat"], ["x" * 100, "y"])
    assert len(blocks) == 2 and "x" * 100 in blocks[0]


def test_digits_tell_scores_apart():
    (block,) = score_blocks(np.array([[-300.0001, -300.0002]]), ["a", "b"], ["c"])
    assert "-300.000100*" in block and "-300.000200" in block
    (block,) = score_blocks(np.array([[0.5001], [0.5002]]), ["a"], ["c", "d"])
    assert "0.500100" in block and "*" not in block
