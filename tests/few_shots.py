"""A few random items for a tiny random model, and how prompts are learned from them in tests.

Model, numbers of items, timesteps and noises, and the recipe are the same wherever they can be:
what one test file has compiled then serves the others.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np

from dsd_jax.benchmarks.encoded_items import EncodedItems, encode
from dsd_jax.benchmarks.encoding import Encoders
from dsd_jax.config import score_spec
from dsd_jax.data.examples import Examples
from dsd_jax.data.synthetic import triples
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.few_shot.support_set import Recipe
from dsd_jax.matching import score_functions
from tests.random_model import random_model

COUNT = 16
TIMESTEPS = score_spec.timesteps(2)
NOISES = 2
LORA = {
    "kinds": ("lora",),
    "methods": ("attention", "relative"),
    "loss": "cross_entropy",
    "margin": 1.0,
    "denoise": 0.5,
    "steps": 6,
    "batch": 4,
    "timesteps": 2,
    "learning_rate": 0.05,
    "weight_decay": 0.01,
    "rank": 2,
    "tokens": 2,
    "accumulate": 1,
    "remat": "nothing",
    "ridges": (1.0, 10.0),
    "held_out": 0.2,
    "check_every": 2,
    "patience": 2,
}


def few_model(fsdp: int = 1) -> Model:
    """One level and two cross-attention layers, for what takes gradients compiles slowly."""
    return random_model(
        fsdp,
        block_out_channels=[8],
        down_block_types=["CrossAttnDownBlock2D"],
        up_block_types=["UpBlock2D"],
    )


@contextmanager
def quick_compilation() -> Iterator[None]:
    """Meanwhile programs are compiled in half the time, to run slower, which here is no matter."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
        jax.clear_caches()  # which don't know this setting: other tests' numbers would be off


def recipe(model: Model, **changes) -> Recipe:
    """The recipe above, with changes; few of them, for each is compiled anew."""
    return Recipe(layers=score_functions.chosen_layers(model.unet), **LORA | changes)


def pictures(count: int = COUNT) -> np.ndarray:
    """uint8 (count, 2, 8, 8, 3): noise, the matching picture's bright at the top.

    So there is something that a few items can teach about others.
    """
    rng = np.random.default_rng(0)
    images = rng.integers(0, 55, (count, 2, 8, 8, 3))
    images[:, 0, :4] += 200
    images[:, 1, 4:] += 200
    return images.astype(np.uint8)


def random_items(model: Model, count: int = COUNT) -> EncodedItems:
    """Items of those pictures, each with a caption of its own."""
    return encode(Encoders(model), examples(count), range(count))


def examples(count: int = COUNT) -> Examples:
    """Those pictures with their captions, as a benchmark has them."""
    images = pictures(count)
    return Examples(
        [(f"a cat and {i}",) for i in range(count)],
        [((i, 0), (i, 1)) for i in range(count)],
        [triples.KINDS[i % len(triples.KINDS)] for i in range(count)],
        range(count),
        lambda key, size: images[key],
    )


def telling_items(model: Model) -> EncodedItems:
    """The same, but noise does not drown what there is to learn about the pictures."""
    items = random_items(model)
    return items._replace(latents=20 * items.latents)
