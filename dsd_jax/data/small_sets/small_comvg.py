"""A small ComVG of emoji scenes: a sentence, and two pictures that differ in one thing."""

import csv
from pathlib import Path

from dsd_jax.data.datasets.comvg import CSV
from dsd_jax.data.small_sets.scene_pairs import nouns, save, triples
from dsd_jax.data.synthetic.scenes import RELATIONS, describe, read_plan
from dsd_jax.data.synthetic.sprites import Sprites

VALUES = {"subject": "subject", "relation": "verb", "object": "object"}
PER_KIND = 10  # pairs of pictures; each of a pair is once the right one
HEADER = ["id", "sentence", "pos_triplet", "neg_triplet"]
HEADER += ["pos_image_id", "neg_image_id", "neg_value"]


def make(folder: Path, sprites: Sprites) -> None:
    """60 items; odd numbers of pictures are in VG_100K, even ones in VG_100K_2."""
    rows = []
    for number, triple in enumerate(triples(sprites, tuple(VALUES), PER_KIND)):
        pair = [2 * number + 1, 2 * number + 2]
        scenes = [triple.positive, triple.negative]
        for name, scene in zip(pair, scenes, strict=True):
            save(scene, sprites, folder / f"VG_100K{'' if name % 2 else '_2'}" / f"{name}.jpg")
        for right in (0, 1):
            row = [f"{describe(read_plan(scenes[right]), sprites.concepts)}."]
            row += [",".join(triplet(scenes[right], sprites))]
            row += [tuple(triplet(scenes[1 - right], sprites))]
            row += [pair[right], pair[1 - right], VALUES[triple.kind]]
            rows.append(row)
    with open(folder / CSV, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(HEADER)
        table.writerows([number, *row] for number, row in enumerate(rows, 1))


def triplet(scene, sprites) -> list[str]:
    """Subject, verb and object, the relation standing for the verb."""
    plan = read_plan(scene)
    subject, thing = nouns(plan, sprites.concepts)
    return [subject, RELATIONS[plan.relation], thing]
