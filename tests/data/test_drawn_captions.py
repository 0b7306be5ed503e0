import numpy as np
import pytest

from dsd_jax.data.drawn_captions import draw_caption, draw_pairs
from dsd_jax.data.synthetic.scenes import describe, draw, read_plan
from dsd_jax.data.synthetic.sprites import load_sprites
from dsd_jax.data.synthetic.triples import make_triples
from dsd_jax.errors import UserError


@pytest.fixture(scope="module")
def drawn_plans():
    """Draw a caption; return the plan of the scene that was drawn, with the names of things."""
    from dsd_jax.data import drawn_captions

    def plan_of(caption, monkeypatch):
        seen = []
        monkeypatch.setattr(
            drawn_captions,
            "draw",
            lambda scene, sprites: (seen.append(scene), draw(scene, sprites))[1],
        )
        draw_caption(caption)
        return read_plan(seen[0])

    return plan_of


@pytest.mark.parametrize(
    "caption",
    [
        "a small cat above a big apple on a red background",
        "an ice cream to the left of a unicorn on a blue background",
        "a big hot dog to the right of a small traffic light on a white background",
        "an hourglass on a pink background",
    ],
)
def test_the_scene_is_what_the_caption_says(caption, drawn_plans, monkeypatch):
    plan = drawn_plans(caption, monkeypatch)
    assert describe(plan, load_sprites().concepts) == caption


def test_the_same_seed_draws_the_same_scene():
    images = [np.asarray(draw_caption("a cat below a dog", seed=seed)) for seed in (1, 1, 2)]
    assert images[0].shape == (64, 64, 3)
    assert np.array_equal(images[0], images[1])
    assert not np.array_equal(images[0], images[2])


@pytest.mark.parametrize(
    ("caption", "said"),
    [
        ("a caat", "did you mean 'cat'"),
        ("two people at a table", "nothing bundled is called 'two people at a table'"),
        ("a cat on a black background", "a background is white"),
        ("", "nothing bundled is called ''"),
    ],
)
def test_a_caption_of_other_words_is_refused(caption, said):
    with pytest.raises(UserError, match=said):
        draw_caption(caption)


def test_other_artists_and_seeds_are_refused():
    with pytest.raises(UserError, match="artist is 'me'"):
        draw_caption("a cat", artist="me")
    with pytest.raises(UserError, match="seed is -1"):
        draw_caption("a cat", seed=-1)


def test_pairs_are_the_items_of_the_benchmark():
    pairs = draw_pairs(3, split="test", start=1)
    sprites = load_sprites()
    triples = list(make_triples("unseen-artist", "test", sprites.concepts))[1:4]
    assert pairs.captions == [triple.caption for triple in triples]
    assert pairs.kinds == ["object", "relation", "size"]
    for triple, image, wrong in zip(triples, pairs.images, pairs.wrong, strict=True):
        assert np.array_equal(np.asarray(image), draw(triple.positive, sprites))
        assert np.array_equal(np.asarray(wrong), draw(triple.negative, sprites))


@pytest.mark.parametrize("changed", [{"split": "train"}, {"count": 0}, {"start": 2000}])
def test_items_that_are_not_there_are_refused(changed):
    with pytest.raises(UserError):
        draw_pairs(**{"count": 1} | changed)
