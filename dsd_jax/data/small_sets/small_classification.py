"""A small classification data set: a folder of pictures for each of ten things."""

from pathlib import Path

from dsd_jax.data.small_sets.scene_pairs import lone_scene, save
from dsd_jax.data.synthetic.sprites import Sprites

CLASSES = 10
PER_CLASS = 5


def make(folder: Path, sprites: Sprites) -> None:
    """50 pictures of one thing each, in folders that are called like it."""
    for concept, name in list(enumerate(sprites.concepts))[:CLASSES]:
        for number in range(PER_CLASS):
            place = folder / name.replace(" ", "_") / f"{number}.jpg"
            save(lone_scene(concept, number), sprites, place)
