"""Attention maps are shares of attention; the bundled model's are high where things are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import dsd_jax
from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import UNSEEN_STYLE, load_sprites
from dsd_jax.errors import UserError
from dsd_jax.matching.attention_maps import _resized as resized
from dsd_jax.prompts.prompt_params import init_lora
from tests.random_model import random_model

CAPTION = "a cat to the left of a red apple"
FIRST = "down_blocks.0.attentions.0.transformer_blocks.0.attn2"


@pytest.fixture(scope="module")
def model():
    return random_model()


@pytest.fixture(scope="module")
def picture():
    """An image that is wider than high."""
    return np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)


@pytest.fixture(scope="module")
def explained(model, picture):
    return dsd_jax.explain(model, picture, CAPTION, timesteps=2)


def test_a_map_of_the_images_size_for_each_word(explained):
    words, maps = explained
    assert words == CAPTION.split()
    assert maps.shape == (len(words), 12, 20) and maps.dtype == np.float32


def test_special_tokens_are_words_like_others(model, picture):
    """Names of special tokens are plain text in a caption; they do not end it."""
    words, maps = dsd_jax.explain(model, picture, "a <|endoftext|> cat", timesteps=1)
    assert "".join(words) == "a<|endoftext|>cat" and len(maps) == len(words)


def test_maps_are_shares_of_attention(explained):
    _, maps = explained
    assert maps.min() >= 0 and maps.max() <= 1
    assert maps.sum(axis=0).max() < 1.01  # what is left goes to start, end and padding
    assert all(np.ptp(heat) > 0 for heat in maps)


def test_whatever_was_asked_before_and_however(model, picture, explained):
    dsd_jax.explain(model, picture[::-1], "a dog", timesteps=2)
    _, again = dsd_jax.explain(model, Image.fromarray(picture), CAPTION, timesteps=2)
    np.testing.assert_array_equal(again, explained[1])


def test_seed_and_prompts_count(model, picture, explained):
    _, other = dsd_jax.explain(model, picture, CAPTION, timesteps=2, seed=1)
    assert np.abs(other - explained[1]).max() > 1e-4
    rng = np.random.default_rng(1)
    lora = init_lora(model.unet, jax.random.key(0), rank=2)
    lora = jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape)), lora)
    _, other = dsd_jax.explain(model, picture, CAPTION, timesteps=2, prompts={"lora": lora})
    assert np.abs(other - explained[1]).max() > 1e-4


def test_coarser_maps_are_enlarged_in_place():
    maps = np.zeros((3, 4), np.float32)  # of a 2x2 grid, row by row
    maps[0, 1], maps[1, 2], maps[2] = 1, 1, 0.25
    found = np.asarray(resized(jnp.asarray(maps), (4, 4)))
    assert found.shape == (3, 4, 4)
    assert np.unravel_index(found[0].argmax(), (4, 4)) == (0, 3)
    assert np.unravel_index(found[1].argmax(), (4, 4)) == (3, 0)
    np.testing.assert_allclose(found[2], 0.25)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caption": " "}, "caption 1 is empty"),
        ({"seed": 2**32}, "seed is 4294967296; expected a whole number"),
        ({"layers": "mid"}, "layer 'mid' is unknown"),
        ({"timesteps": 0}, "timesteps is 0"),
        ({"image": "nowhere.png"}, "nowhere.png is missing"),
        ({"prompts": "nowhere"}, "nowhere holds no prompts"),
    ],
)
def test_mistakes(model, picture, options, message):
    options = {"image": picture, "caption": "a cat"} | options
    with pytest.raises(UserError, match=message):
        dsd_jax.explain(model, options.pop("image"), options.pop("caption"), **options)


def test_the_bundled_model_looks_where_the_thing_is():
    """Scenes with one thing by artists it has seen: its word's map is higher on it than beside.

    In its first layer: most others of this under-trained model look beside the thing.
    """
    model, sprites = dsd_jax.load("tiny"), load_sprites()
    rng, count, higher = np.random.default_rng(0), 40, 0
    styles = [i for i, style in enumerate(sprites.styles) if style != UNSEEN_STYLE]
    pairs = scenes.allowed_pairs(len(sprites.concepts))
    for _ in range(count):
        scene = scenes.lay_out(rng, scenes.sample_plan(rng, pairs, styles, single=1))
        concept = sprites.concepts[scene.things[0].concept]
        caption = f"{scenes.article(concept)} {concept}"
        words, maps = dsd_jax.explain(
            model, scenes.draw(scene, sprites), caption, timesteps=4, layers=FIRST
        )
        inside = box(scene.things[0])
        heat = maps[words.index(concept.split()[-1])]
        higher += heat[inside].mean() > heat[~inside].mean()
    assert higher >= 0.6 * count


def box(thing: scenes.Thing) -> np.ndarray:
    """The thing's square as a mask."""
    mask = np.zeros((scenes.SIDE, scenes.SIDE), bool)
    mask[thing.top : thing.top + thing.size, thing.left : thing.left + thing.size] = True
    return mask


def test_sdxl(picture):
    """SDXL's UNet gets the pooled text states and the image size."""
    model = random_model(xl=True)
    words, maps = dsd_jax.explain(model, picture, CAPTION, timesteps=1)
    assert words == CAPTION.split() and maps.shape == (len(words), 12, 20)
    assert maps.min() >= 0 and maps.sum(axis=0).max() < 1.01
    assert all(np.ptp(heat) > 0 for heat in maps)
