"""Pointing accuracy of heat maps on the emoji scenes, whose things' places are known.

    python -m dsd_jax.benchmarks.pointing --items=120
    python -m dsd_jax.benchmarks.pointing --prompts=runs/emoji/prompts/adapted-256/seed-0

A map points at a thing if it is highest inside the square that the thing fills. Measured are the
attention to the thing's name, in every layer and in several, and the difference of the caption's
score and that of the same caption with another name. Chance is the squares' mean part of the image.
Items are of the validation split: the default layers of `explain` are chosen by them.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from dsd_jax.config import score_spec
from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import Sprites, load_sprites
from dsd_jax.data.synthetic.triples import ARTISTS, Triple, make_triples
from dsd_jax.diffusion import noising
from dsd_jax.diffusion.pipeline import Model
from dsd_jax.diffusion.tokenization import caption_words
from dsd_jax.matching.attention_maps import balanced_mean, layer_maps
from dsd_jax.matching.forward import (
    ForwardConfig,
    OutputSpec,
    cross_attention_layers,
    finest_layers,
)
from dsd_jax.matching.match_scores import match_settings, pixel_key
from dsd_jax.matching.score_maps import difference_map, spread
from dsd_jax.prompts.prompt_files import read_prompts
from dsd_jax.prompts.prompt_params import by_layer
from dsd_jax.weights.model_loading import load

BATCH = 40  # scenes whose maps are computed together


class NamedThing(NamedTuple):
    """A thing in a scene that a caption names.

    Attributes:
        scene: index of the scene.
        tokens: first and last + 1 of the positions of its name.
        box: left, top and side of the square that it fills, in pixels.
        other: the caption with the name of a thing that is not there.
    """

    scene: int
    tokens: tuple[int, int]
    box: tuple[int, int, int]
    other: str


class PointingItems(NamedTuple):
    """Scenes with captions, and the things that these name.

    Attributes:
        pixels: (n, 64, 64, 3) uint8.
        captions: n texts.
        things: of all scenes.
    """

    pixels: np.ndarray
    captions: list[str]
    things: list[NamedThing]

    @property
    def chance(self) -> float:
        """The mean part of the image that a thing's square is."""
        return float(np.mean([thing.box[2] ** 2 for thing in self.things])) / scenes.SIDE**2


def pointing_items(model: Model, artists: str, count: int) -> PointingItems:
    """Return the first items of a validation split.

    Args:
        model: whose tokenizer finds the names.
        artists: a key of `ARTISTS`.
        count: number of scenes.
    """
    sprites, rng = load_sprites(), np.random.default_rng(0)
    triples = list(islice(make_triples(artists, "validation", sprites.concepts), count))
    things = [
        thing
        for place, triple in enumerate(triples)
        for thing in _named_things(model, place, triple, sprites, rng)
    ]
    pixels = np.stack([scenes.draw(triple.positive, sprites) for triple in triples])
    return PointingItems(pixels, [triple.caption for triple in triples], things)


def _named_things(
    model: Model, place: int, triple: Triple, sprites: Sprites, rng: np.random.Generator
) -> list[NamedThing]:
    words, spans = caption_words(model.tokenizer, triple.caption)
    there = [thing.concept for thing in triple.positive.things]
    absent = [c for i, c in enumerate(sprites.concepts) if i not in there]
    found = []
    for thing in triple.positive.things:
        name = sprites.concepts[thing.concept]
        parts = name.split()
        first = next(i for i in range(len(words)) if words[i : i + len(parts)] == parts)
        tokens = spans[first][0], spans[first + len(parts) - 1][1]
        other = triple.caption.replace(name, absent[int(rng.integers(len(absent)))], 1)
        found.append(NamedThing(place, tokens, (thing.left, thing.top, thing.size), other))
    return found


def points_at(heat: np.ndarray, box: tuple[int, int, int]) -> bool:
    """Return whether a map, of any size, is highest inside a square of the scene."""
    big = spread(np.asarray(heat, np.float64), (scenes.SIDE, scenes.SIDE))
    row, column = np.unravel_index(big.argmax(), big.shape)
    left, top, side = box
    return bool(left <= column < left + side and top <= row < top + side)


def attention_accuracy(
    model: Model, items: PointingItems, prompts: dict[str, Any], timesteps: int
) -> dict[str, float]:
    """Return how often the attention to a thing's name points at it: {layers: 0 to 1}."""
    every = cross_attention_layers(model.unet)
    maps = _attention(model, items, prompts, timesteps)  # of every layer
    chosen = {layer: [layer] for layer in every}
    chosen |= {"finest": list(finest_layers(model.unet)), "all": list(every)}
    found = {}
    for name, layers in chosen.items():
        heats = balanced_mean(maps[[every.index(layer) for layer in layers]])
        found[name] = _accuracy(list(heats), items)
    return found


def _attention(
    model: Model, items: PointingItems, prompts: dict[str, Any], timesteps: int
) -> np.ndarray:
    """Return the map of every thing's name in every layer: (layers, things, h, w)."""
    config = ForwardConfig.of(
        model, OutputSpec(cross_attention_layers(model.unet), error=False, uncond=False)
    )
    latents, texts = model.latents(items.pixels), model.encode_captions(items.captions)
    keys = np.array([pixel_key(pixels) for pixels in items.pixels], np.uint32)
    steps = []
    for timestep in score_spec.timesteps(timesteps):
        batches = []
        for start in range(0, len(latents), BATCH):
            part = slice(start, start + BATCH)
            times = np.full(len(latents[part]), timestep, np.int32)
            noise = noising.keyed_noise(
                np.zeros(1, int), keys[part], times[:1], model.latent_shape
            )[:, 0]
            maps = layer_maps(
                config,
                model.params["unet"],
                by_layer(prompts),
                noisy=model.schedule.add_noise(latents[part], noise, jnp.asarray(times)),
                timesteps=times,
                texts=texts.map(lambda x, part=part: x[part]),
            )
            batches.append(np.asarray(maps))
        tokens = np.concatenate(batches, axis=1)
        names = [tokens[:, t.scene, t.tokens[0] : t.tokens[1]].sum(axis=1) for t in items.things]
        steps.append(np.stack(names, axis=1))
    return balanced_mean(np.stack(steps))


def difference_accuracy(
    model: Model,
    items: PointingItems,
    prompts: dict[str, Any],
    *,
    method: str,
    timesteps: int,
) -> float:
    """Return how often the map of a method's decision for a thing's name points at it."""
    settings = match_settings(model, prompts, method, timesteps, layers=None, seed=0, force=True)
    heats = [
        difference_map(
            model,
            items.pixels[thing.scene],
            (items.captions[thing.scene], thing.other),
            settings,
        )
        for thing in items.things
    ]
    return _accuracy(heats, items)


def _accuracy(heats: Sequence[np.ndarray], items: PointingItems) -> float:
    right = [points_at(heat, t.box) for heat, t in zip(heats, items.things, strict=True)]
    return float(np.mean(right))


def main(argv: Sequence[str]) -> None:
    """Print a table for each group of artists."""
    parser = argparse.ArgumentParser("python -m dsd_jax.benchmarks.pointing", description=__doc__)
    parser.add_argument("--weights", default="tiny", help="a model that knows the scenes")
    parser.add_argument("--prompts", help="a folder of prompts that train wrote")
    parser.add_argument("--items", type=int, default=120, help="scenes of each group of artists")
    parser.add_argument("--timesteps", type=int, default=10)
    parser.add_argument("--methods", nargs="*", default=["attention", "noise", "relative", "dsd"])
    flags = parser.parse_args(argv)
    model = load(flags.weights)
    prompts = read_prompts(flags.prompts, model.unet)
    for artists in ARTISTS:
        items = pointing_items(model, artists, flags.items)
        print(f"{artists}: {len(items.things)} things, chance {items.chance:.3f}", flush=True)
        rows = attention_accuracy(model, items, prompts, flags.timesteps)
        for layer, accuracy in rows.items():
            _print_row(f"attention to the name, {layer}", accuracy, len(items.things))
        for method in flags.methods:
            accuracy = difference_accuracy(
                model, items, prompts, method=method, timesteps=flags.timesteps
            )
            _print_row(f"decision for the name, {method}", accuracy, len(items.things))


def _print_row(label: str, accuracy: float, count: int) -> None:
    error = (accuracy * (1 - accuracy) / count) ** 0.5
    print(f"  {accuracy:.3f} +- {error:.3f}  {label}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
