"""Draws docs/pairs/: 32 pictures with a right and a wrong caption each, as one's own data look.

python docs/draw_pairs.py
The drawings are Twemoji's, in pairs that the bundled model's pre-training never showed. A wrong
caption turns the relation round, or names another thing.
"""

import csv
from pathlib import Path

import numpy as np
from PIL import Image

from dsd_jax.data.synthetic import scenes
from dsd_jax.data.synthetic.sprites import load_sprites

FOLDER = Path(__file__).parent / "pairs"
COUNT = 32


def main() -> None:
    """Draw the pictures and write the captions."""
    rng, sprites = np.random.default_rng(0), load_sprites()
    pairs, style = sorted(scenes.held_out_pairs(len(sprites.concepts))), [0]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["image", "caption", "wrong_caption_1", "kind"])
        for number in range(1, COUNT + 1):
            plan = scenes.sample_plan(rng, pairs, style, single=0)
            kind = ("relation", "thing")[number % 2]
            captions = [words(p, sprites.concepts) for p in (plan, changed(plan, kind, rng))]
            name = f"{number:02}.png"
            picture = scenes.draw(scenes.lay_out(rng, plan), sprites)
            Image.fromarray(picture).save(FOLDER / name, optimize=True)
            rows.writerow([name, *captions, kind])


def changed(plan: scenes.Plan, kind: str, rng: np.random.Generator) -> scenes.Plan:
    """Return a plan that the picture of `plan` does not fulfil."""
    if kind == "relation":
        return plan._replace(relation=scenes.INVERSE[plan.relation])
    other = int(rng.integers(100))
    while other in plan.concepts:
        other = int(rng.integers(100))
    return plan._replace(concepts=(plan.concepts[0], other))


def words(plan: scenes.Plan, concepts: tuple[str, ...]) -> str:
    """Return the sentence about things and their places."""
    return scenes.describe(plan, concepts, name_sizes=(False, False), name_background=False)


if __name__ == "__main__":
    main()
